"""``gru4rec verify-export``: does an exported file say what its model says?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from gru4rec.cli.common import positive, whole_number

if TYPE_CHECKING:
    from gru4rec.export.verify import Outcome

HELP = "run random sessions through an exported file and its model, and compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="what gru4rec export wrote; the outcome is recorded in it. A .pt2 file can execute code",
    )
    parser.add_argument("model", metavar="MODEL", help="the model file it was exported from")
    parser.add_argument("--sessions", metavar="N", type=positive, default=1000, help="random sessions (1000)")
    parser.add_argument("--seed", metavar="N", type=whole_number, default=0, help="to draw them from (0)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.export.verify import verify

    outcome = verify(args.file, args.model, n_sessions=args.sessions, seed=args.seed)
    print(json.dumps(outcome.described()) if args.json else _text(args.file, args.model, outcome))
    return 0 if outcome.agrees else 1


def _text(file: str, model: str, outcome: Outcome) -> str:
    return "\n".join(
        [
            f"{file} {'agrees' if outcome.agrees else 'DISAGREES'} with {model}, by {outcome.runtime}",
            f"{outcome.sessions:,} random sessions (seed {outcome.seed}), {outcome.clicks:,} clicks, "
            f"a list of {outcome.k} after each",
            f"states: differ by {outcome.state_difference:.1e} at most (allowed: {outcome.tolerance:.0e})",
            f"scores: differ by {outcome.score_difference:.1e} at most (allowed: {outcome.tolerance:.0e})",
            f"lists: {outcome.same_lists:,} the same, {outcome.tied_lists:,} the same but for ties, "
            f"{outcome.other_lists:,} others",
        ]
    )
