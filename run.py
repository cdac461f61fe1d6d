#!/usr/bin/env python3
"""Train, load, evaluate and save a GRU4Rec model: ``python run.py --help``."""

import sys

from gru4rec.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
