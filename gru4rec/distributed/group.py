"""The processes of a run, as torchrun starts them, and what they tell each other. Knows no models.

Every process calls the same methods in the same order; each returns only when all have called it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gru4rec.errors import ConfigError, GRU4RecError

_FAILED = "failed"
_TIMEOUT = timedelta(minutes=30)
_PATIENCE = timedelta(seconds=3)
"""How long a process that failed waits to hear whether the first one failed too."""

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name before torch 2.13


class LostPeerError(GRU4RecError):
    """Another process of the run has ended, so that this one cannot go on.

    Exit status 1: the input was usable, the run failed.
    """

    exit_status = 1


class Group:
    """The processes of a run.

    Args:
        device: Where this process computes.
        store: What they share beside their messages.

    Attributes:
        rank: Which of them this is, from 0.
        n_ranks: How many there are.
        device: Where this process computes.
    """

    def __init__(self, device: torch.device, store: Store) -> None:
        self.rank, self.n_ranks, self.device = dist.get_rank(), dist.get_world_size(), device
        self._store = store

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> None:
        """Make ``values`` the sum of all processes' values, the same bits everywhere.

        Raises:
            LostPeerError: A process is gone.
        """
        if self.n_ranks > 1 and values.numel():
            with _lost_named():
                dist.all_reduce(values)

    def gather(self, values: Tensor) -> Tensor:
        """Return all processes' values (W, ...); they have one shape.

        Raises:
            LostPeerError: A process is gone.
        """
        gathered = values.new_empty(self.n_ranks, *values.shape)
        if self.n_ranks == 1 or not values.numel():
            gathered[0] = values
            return gathered
        with _lost_named():
            _all_gather(gathered.view(-1), values.contiguous().view(-1))
        return gathered

    def gather_at_first(self, values: Tensor) -> list[Tensor] | None:
        """Return all processes' values, of one shape, in the first process; None in the others.

        Raises:
            LostPeerError: A process is gone.
        """
        if self.n_ranks == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.n_ranks)] if self.is_first else None
        with _lost_named():
            dist.gather(values, parts, dst=0)
        return parts

    def any(self, flag: bool) -> bool:
        """Return whether any process says so.

        Raises:
            LostPeerError: A process is gone.
        """
        flags = torch.tensor(int(flag), device=self.device)
        self.sum(flags)
        return bool(flags)

    def speaks_of_failure(self) -> bool:
        """Tell, where an error ends this process, whether it is to report it: it is the first, or it fails alone.

        What is wrong with settings or logs is wrong in all processes, and should be read once.
        """
        try:
            if self.is_first:
                self._store.set(_FAILED, "yes")
                return True
            self._store.wait([_FAILED], _PATIENCE)
        except RuntimeError:  # the first did not fail in time, or nobody is there any more
            return True
        return False


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Meet the other processes of the run, and part in the end.

    Args:
        device: Where this process computes: gloo on a CPU, NCCL on a GPU.

    Raises:
        ConfigError: They cannot be met.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store, rank, n_ranks = next(rendezvous("env://", timeout=_TIMEOUT))
        # torchrun may keep its store when it starts all processes again; addresses of before would be in the way.
        store = PrefixStore(f"gru4rec/attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=n_ranks, timeout=_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the processes of the run do not find each other through {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')} with {backend}: {_said(error)}. Start them with "
            "torchrun, and check addresses and firewalls"
        ) from None
    try:
        yield Group(device, store)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def device_here(name: str) -> str:
    """Return the device of this process where the run was given ``name``: each process has a GPU of its own.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: ``cuda:N``, which would be the same one for all.
    """
    if name.startswith("cuda:"):
        raise ConfigError(f"-d {name} would put all processes of the run on one GPU. Give -d cuda: each takes its own")
    wants_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{os.environ['LOCAL_RANK']}" if wants_gpu else name


@contextlib.contextmanager
def _lost_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostPeerError(
            f"another process of the run is gone: {_said(error)}. With torchrun --max-restarts, a run "
            "folder and --resume, the run goes on from its newest checkpoint"
        ) from None


def _said(error: Exception) -> str:
    """Return the first sentence of a message, less the places in torch's sources."""
    return re.sub(r"\[/[^ ]*\] ", "", str(error).splitlines()[0]).partition(". ")[0]
