"""Commands that torchrun starts several times: all processes work together, the first one speaks and writes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import Output
from gru4rec.errors import ConfigError, GRU4RecError

if TYPE_CHECKING:
    from gru4rec.api import GRU4Rec
    from gru4rec.distributed.group import Group


@contextlib.contextmanager
def processes(args: argparse.Namespace) -> Iterator[Group | None]:
    """Meet the other processes of the run, where torchrun started several; None where it did not.

    Raises:
        ConfigError: They do not find each other, or ``-d`` does not suit several.
    """
    if (
        "RANK" not in os.environ or "MASTER_ADDR" not in os.environ
    ):  # what torchrun sets; importing torch takes a second
        yield None
        return
    from gru4rec.distributed.group import device_here, joined
    from gru4rec.model.device import resolve_device

    args.device = device_here(args.device)
    with joined(resolve_device(args.device)) as group:
        args.quiet |= not group.is_first
        try:
            yield group
        except GRU4RecError as error:
            if not group.speaks_of_failure():
                sys.exit(error.exit_status)
            raise


def new_model(group: Group | None, model_class: type[GRU4Rec], device: str) -> GRU4Rec:
    """Return a model that is to be trained, by one process or by several.

    Raises:
        ConfigError: Several processes would have to train a class of the user's own.
    """
    from gru4rec.api import GRU4Rec

    if group is None:
        return model_class(device=device)
    if model_class is not GRU4Rec:
        raise ConfigError(
            f"several processes train gru4rec's own GRU4Rec only, and -g gives {model_class.__module__}."
            f"{model_class.__qualname__}. Leave -g out, or torchrun"
        )
    from gru4rec.distributed.model import DistributedGRU4Rec

    return DistributedGRU4Rec(group)


def output_of_first(group: Group | None, output: Output) -> Output:
    """Return where results go: nowhere in all processes but the first."""
    return output if group is None or group.is_first else _NoOutput()


class _NoOutput:
    """Results that another process shows."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **named: None
