"""``gru4rec convert``: turn a model of the official program into a gru4rec model file, executing nothing in it."""

from __future__ import annotations

import argparse
import json

from gru4rec.cli.common import add_output_options, same_file, say
from gru4rec.errors import ConfigError

HELP = "convert a model saved by the official program"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("official", metavar="OFFICIAL_MODEL", help="model file of the official PyTorch program")
    parser.add_argument("output", metavar="MODEL", help="file to write")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.bundle import check_writable, save_bundle
    from gru4rec.convert.official import bundle_from_official, read_official_model

    if same_file(args.official, args.output):
        raise ConfigError(f"converting {args.official} onto itself would lose it. Give another output path")
    check_writable(args.output)
    bundle = bundle_from_official(read_official_model(args.official))
    save_bundle(bundle, args.output)
    say(
        args,
        f"saved {args.output}: {bundle.items.n_items:,} items, layers {list(bundle.settings.layers)}",
    )
    if args.json:
        print(
            json.dumps({"model": args.output, "n_items": bundle.items.n_items, "layers": list(bundle.settings.layers)})
        )
    return 0
