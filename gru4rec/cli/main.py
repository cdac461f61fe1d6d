"""The ``gru4rec`` command. Each subcommand is a module with HELP, add_arguments and run.

Torch is imported by ``run`` only, so that help comes at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from gru4rec import __version__
from gru4rec.cli import (
    backtest,
    batch,
    compare,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    monitor,
    prepare,
    recommend,
    reproduce,
    serve,
    simulate,
    train,
    tune,
    update,
    verify_export,
)
from gru4rec.cli.common import guarded
from gru4rec.cli.processes import check_alone, parsed

_COMMANDS = {
    "demo": demo,
    "simulate": simulate,
    "prepare": prepare,
    "doctor": doctor,
    "train": train,
    "monitor": monitor,
    "update": update,
    "tune": tune,
    "evaluate": evaluate,
    "recommend": recommend,
    "batch": batch,
    "serve": serve,
    "reproduce": reproduce,
    "compare": compare,
    "backtest": backtest,
    "convert": convert,
    "export": export,
    "verify-export": verify_export,
}


def command() -> None:
    """Run the command line of this process and exit; when told to end it puts its half-written files away first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    args = parsed(_parser(), argv)
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    if args.run is not train.run:
        check_alone(f"gru4rec {args.command}")
    return int(args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gru4rec", description="Session-based recommendation: from a click log to the next item."
    )
    parser.add_argument("--version", action="version", version=f"gru4rec {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=f"{module.HELP[0].upper()}{module.HELP[1:]}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
