"""``python -m benchmarks.prepare_process RAW -o DIR ...``: ``gru4rec prepare``, and then the most memory it held."""

import sys

from benchmarks.process_memory import peak_bytes
from gru4rec.cli.main import main

if __name__ == "__main__":
    status = main(["prepare", *sys.argv[1:]])
    print(peak_bytes())
    sys.exit(status)
