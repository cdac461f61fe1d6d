"""``gru4rec recommend``: the next items of one session."""

from __future__ import annotations

import argparse
import json

from gru4rec.cli.common import add_device_option, add_output_options, say

HELP = "print the next items of a session"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "items",
        metavar="ITEM",
        nargs="*",
        help="item ids the visitor clicked, oldest first, apart by spaces; none: the popular items",
    )
    parser.add_argument("-k", type=int, default=10, help="list length (10)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--exclude-seen", action="store_true", help="leave out the items of the session")
    group.add_argument("--exclude", metavar="ITEM", nargs="+", help="leave out these items")
    add_device_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.model.device import resolve_device
    from gru4rec.serve.recommender import Recommender

    recommender = Recommender.load(args.model, device=str(resolve_device(args.device)))
    found = recommender.recommend(args.items, args.k, exclude="seen" if args.exclude_seen else args.exclude)
    if found.n_unknown:
        say(args, f"{found.n_unknown} of {len(args.items)} clicks skipped: the model does not know these items")
    is_popular = found.n_unknown == len(args.items)
    if is_popular:
        say(args, "no known item was clicked: these are the popular items, with their training events as scores")
    if args.json:
        print(
            json.dumps(
                {
                    "item_ids": found.item_ids,
                    "scores": found.scores,
                    "n_unknown": found.n_unknown,
                    "popular": is_popular,
                }
            )
        )
        return 0
    for item_id, score in zip(found.item_ids, found.scores, strict=True):
        print(f"{item_id}\t{score:.6f}")
    return 0
