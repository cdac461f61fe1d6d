"""``gru4rec evaluate``: measure a saved model on test logs."""

from __future__ import annotations

import argparse

from gru4rec.cli.common import add_job_options, output_of

HELP = "measure a saved model on test logs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("test", metavar="LOG", nargs="+", help="test logs")
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.api import GRU4Rec
    from gru4rec.cli import pipeline

    gru = GRU4Rec.loadmodel(args.model, device=args.device)
    assert gru.items is not None
    tests = pipeline.read_tests(args, args.test, gru.items)
    pipeline.evaluate_model(args, output_of(args), gru, tests)
    return 0
