"""``gru4rec simulate``: write the logs of a made-up shop, so that every command can be tried at once."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

from gru4rec.cli.common import add_output_options, say
from gru4rec.errors import DataError

HELP = "write the logs of a made-up shop: train, test, train_tr, train_valid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; those of the shop come from their declaration."""
    from gru4rec.data.simulate import RANGES, ShopSettings

    parser.add_argument("folder", metavar="FOLDER", help="where to; made if missing")
    parser.add_argument(
        "--test_days", metavar="X", type=float, default=2.0, help="days at the end that become test (2)"
    )
    parser.add_argument("--force", action="store_true", help="replace logs that are there already")
    add_output_options(parser)
    group = parser.add_argument_group("the shop")
    for setting in fields(ShopSettings):
        low, high = RANGES[setting.name]
        kind = type(setting.default)
        help_text = f"{low:,} to {high:,} ({setting.default})"
        group.add_argument(f"--{setting.name}", metavar="X", type=kind, default=setting.default, help=help_text)


def _path(folder: str, name: str) -> Path:
    return Path(folder) / f"{name}.tsv"


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.data.simulate import ShopSettings, simulate_shop
    from gru4rec.data.simulated_logs import write_logs

    settings = ShopSettings(**{setting.name: getattr(args, setting.name) for setting in fields(ShopSettings)})
    taken = [
        path for name in ("train", "test", "train_tr", "train_valid") if (path := _path(args.folder, name)).exists()
    ]
    if taken and not args.force:
        raise DataError(f"{taken[0]} is there already. Give another folder, or --force to replace it")
    shop = simulate_shop(settings)
    paths = write_logs(shop, args.folder, test_days=args.test_days)
    say(
        args,
        f"a made-up shop: {len(shop.time):,} clicks on {settings.n_items:,} items in {settings.n_sessions:,} sessions",
    )
    if args.json:
        print(json.dumps({name: str(path) for name, path in paths.items()}))
        return 0
    for path in paths.values():
        print(path)
    return 0
