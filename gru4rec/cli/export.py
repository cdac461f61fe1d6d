"""``gru4rec export``: a model as a graph that other programs run, without gru4rec."""

from __future__ import annotations

import argparse
import json
import os

from gru4rec.cli.common import add_output_options, positive, same_file, say
from gru4rec.errors import ConfigError

HELP = "write a model as ONNX or .pt2, to be served without gru4rec"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", metavar="MODEL", help="model file of a GRU4Rec")
    parser.add_argument("--onnx", metavar="OUT", help="write ONNX; needs pip install 'gru4rec[export]'")
    parser.add_argument("--pt2", metavar="OUT", help="write what torch.export.load reads; its name ends in .pt2")
    parser.add_argument(
        "-k", metavar="K", type=positive, default=20, help="length of the lists, fixed in the file (20)"
    )
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    _check_outputs(args)
    from gru4rec.bundle import check_writable
    from gru4rec.export.onnx_file import write_onnx
    from gru4rec.export.pt2_file import write_pt2
    from gru4rec.export.step_graph import read_step_model

    wanted = [(path, write) for path, write in ((args.onnx, write_onnx), (args.pt2, write_pt2)) if path is not None]
    for path, _ in wanted:
        check_writable(path)
    model = read_step_model(args.model, args.k)
    for path, write in wanted:
        write(model, path)
        say(args, f"wrote {path}. Next: gru4rec verify-export {path} {args.model}")
    if args.json:
        about = model.about
        print(
            json.dumps(
                {
                    "files": [path for path, _ in wanted],
                    "model_version": about.model_version,
                    "k": about.k,
                    "n_items": about.n_items,
                    "layers": about.layers,
                    "id_kind": about.id_kind,
                }
            )
        )
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    if args.onnx is None and args.pt2 is None:
        raise ConfigError("nothing to write. Give --onnx OUT.onnx, --pt2 OUT.pt2 or both")
    if args.pt2 is not None and not args.pt2.endswith(".pt2"):
        raise ConfigError(f"--pt2 {args.pt2}: torch.export.load opens no file of such a name. Let it end in .pt2")
    if args.onnx is not None and args.pt2 is not None and os.path.realpath(args.onnx) == os.path.realpath(args.pt2):
        raise ConfigError(f"--onnx and --pt2 both name {args.onnx}. Give two paths")
    for path in (args.onnx, args.pt2):
        if path is not None and same_file(args.model, path):
            raise ConfigError(f"exporting {args.model} onto itself would lose it. Give another output path")
