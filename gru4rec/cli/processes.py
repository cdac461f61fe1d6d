"""Commands that torchrun starts several times: all processes work together, the first one speaks and writes."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import Output
from gru4rec.errors import ConfigError, GRU4RecError

if TYPE_CHECKING:
    from gru4rec.api import GRU4Rec
    from gru4rec.distributed.group import Group, Peers
    from gru4rec.distributed.model import DistributedGRU4Rec


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; of several processes that find the same wrong, one says so."""
    if not _is_launched():
        return parser.parse_args(argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(argv)
    except SystemExit as end:
        from gru4rec.distributed.group import meet

        if end.code and meet().is_to_report():
            sys.stderr.write(said.getvalue())
        raise


@contextlib.contextmanager
def processes(args: argparse.Namespace) -> Iterator[Group | None]:
    """Meet the other processes of the run, where torchrun started several; None where it did not.

    Raises:
        ConfigError: They do not find each other, or ``-d`` does not suit several.
    """
    if not _is_launched():
        yield None
        return
    from gru4rec.distributed.group import device_here, joined, meet
    from gru4rec.model.device import resolve_device

    peers = meet()
    with _reported_once(peers):
        args.device = device_here(args.device)
        device = resolve_device(args.device)
    with joined(device, peers) as group, _reported_once(peers):
        args.quiet |= not group.is_first
        yield group


def check_alone(what: str) -> None:
    """Refuse to do the same work, and to write the same files, in each of several processes.

    Args:
        what: What messages call the command.

    Raises:
        ConfigError: torchrun started several.
    """
    if not _is_launched() or os.environ.get("WORLD_SIZE", "1") == "1":
        return
    if os.environ["RANK"] != "0":
        sys.exit(ConfigError.exit_status)
    raise ConfigError(
        f"{what} is done by one process, and torchrun started {os.environ['WORLD_SIZE']}. Call it without torchrun; "
        "gru4rec train, and run.py -l to measure a model, share the work"
    )


def _is_launched() -> bool:
    """Tell whether torchrun started this process; importing torch, which could tell, takes a second."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


@contextlib.contextmanager
def _reported_once(peers: Peers) -> Iterator[None]:
    try:
        yield
    except GRU4RecError as error:
        if not peers.is_to_report():
            sys.exit(error.exit_status)
        raise
    except KeyboardInterrupt:  # Ctrl-C comes to all
        if peers.rank:
            sys.exit(130)
        raise


def new_model(group: Group | None, model_class: type[GRU4Rec], device: str) -> GRU4Rec:
    """Return a model that is to be trained, by one process or by several.

    Raises:
        ConfigError: Several processes would have to train a class of the user's own.
    """
    if group is None:
        return model_class(device=device)
    return _class_of_several(model_class)(group)


def loaded_model(group: Group | None, model_class: type[GRU4Rec], path: str, device: str) -> GRU4Rec:
    """Return a saved model, in one process or spread over several; raises what its ``loadmodel`` does.

    Raises:
        ConfigError: Several processes would have to hold a class of the user's own.
    """
    if group is None:
        return model_class.loadmodel(path, device=device)
    return _class_of_several(model_class).load(path, group)


def _class_of_several(model_class: type[GRU4Rec]) -> type[DistributedGRU4Rec]:
    from gru4rec.api import GRU4Rec
    from gru4rec.distributed.model import DistributedGRU4Rec

    if model_class is not GRU4Rec:
        raise ConfigError(
            f"several processes share gru4rec's own GRU4Rec only, and -g gives {model_class.__module__}."
            f"{model_class.__qualname__}. Leave -g out, or torchrun"
        )
    return DistributedGRU4Rec


def output_of_first(group: Group | None, output: Output) -> Output:
    """Return where results go: nowhere in all processes but the first."""
    return output if group is None or group.is_first else _NoOutput()


class _NoOutput:
    """Results that another process shows."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **named: None
