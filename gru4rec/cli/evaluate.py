"""``gru4rec evaluate``: measure a saved model on test logs."""

from __future__ import annotations

import argparse

from gru4rec.cli.common import add_job_options, output_of, say

HELP = "measure a saved model of any kind on test logs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("test", metavar="LOG", nargs="+", help="test logs")
    parser.add_argument(
        "--intervals", action="store_true", help="print 95%% intervals too, by bootstrap over the sessions"
    )
    parser.add_argument(
        "--events", metavar="DIR", help="write every target's rank and list to DIR/NAME_OF_THE_LOG.parquet"
    )
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from pathlib import Path

    from gru4rec.baselines.files import load
    from gru4rec.cli import pipeline
    from gru4rec.compare.output import check_event_names, check_folder, write_events
    from gru4rec.config import DEFAULT_SEED, HyperParameters
    from gru4rec.model.device import resolve_device

    names = [Path(path).name.split(".")[0] for path in args.test]
    if args.events is not None:
        check_event_names(names, advice="Evaluate them in two calls, into two folders")
    device = resolve_device(args.device)
    fitted = load(args.model, device=device)
    settings = fitted.settings
    seed = settings.draw_seed if isinstance(settings, HyperParameters) else DEFAULT_SEED
    if args.events is not None:
        check_folder(Path(args.events))
    tests = pipeline.read_tests(args, args.test, fitted.items)
    output = output_of(args)
    list_length = max(args.measure) if args.events is not None else 0
    found = pipeline.evaluate_scorer(args, output, fitted.scorer, device, seed, tests, list_length=list_length)
    for name, evaluation in zip(names, found, strict=True):
        if args.intervals:
            output.intervals(evaluation.sessions.source, evaluation.intervals(args.measure, args.eval_type, seed=seed))
        if args.events is not None:
            say(args, f"wrote {write_events(name, evaluation, args.eval_type, seed, Path(args.events))}")
    return 0
