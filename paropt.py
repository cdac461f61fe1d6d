#!/usr/bin/env python3
"""Search the hyper-parameters of a GRU4Rec model: ``python paropt.py --help``."""

import sys

from gru4rec.cli.tune import paropt

if __name__ == "__main__":
    sys.exit(paropt())
