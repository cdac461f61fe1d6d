"""The processes of a run, as torchrun starts them, and what they tell each other. Knows no models.

Every process calls the same methods in the same order; each returns only when all have called it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gru4rec.errors import ConfigError, GRU4RecError

_TIMEOUT = timedelta(minutes=30)
_PATIENCE_S = 3.0
"""How long a process that failed waits for another one to say why."""
_LOOK_EVERY_S = 0.02
_ARRIVED, _SPOKEN = "arrived", "spoken"

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name before torch 2.13


class LostPeerError(GRU4RecError):
    """Another process of the run has ended, so that this one cannot go on.

    Exit status 1: the input was usable, the run failed.
    """

    exit_status = 1


class Peers:
    """The processes of a run that have met, before anything is known of their devices.

    Args:
        rank: Which of them this is, from 0.
        n_ranks: How many there are.
        store: What they share beside their messages: keys and values of this start of them alone.

    Attributes:
        rank: As given.
        n_ranks: As given.
        store: As given.
    """

    def __init__(self, rank: int, n_ranks: int, store: Store) -> None:
        self.rank, self.n_ranks, self.store = rank, n_ranks, store

    def is_to_report(self) -> bool:
        """Tell, where an error ends this process, whether to report it: the first one does, else who comes first.

        What is wrong with settings or logs is wrong in all processes, and should be read once; where one fails alone,
        it has said why before the others find that it is gone.
        """
        until = time.monotonic() + _PATIENCE_S
        try:
            while self.rank and time.monotonic() < until:
                if self.store.check([_SPOKEN]):
                    return False
                time.sleep(_LOOK_EVERY_S)
            return self.store.add(_SPOKEN, 1) == 1
        except RuntimeError:  # nobody is there any more
            return True


class Group:
    """The processes of a run.

    Args:
        device: Where this process computes.

    Attributes:
        rank: Which of them this is, from 0.
        n_ranks: How many there are.
        device: Where this process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.n_ranks, self.device = dist.get_rank(), dist.get_world_size(), device

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


def meet() -> Peers:
    """Meet the other processes that torchrun started with this one.

    Raises:
        ConfigError: They do not come.
    """
    with _not_met_named():
        store, rank, n_ranks = next(rendezvous("env://", timeout=_TIMEOUT))
        return Peers(rank, n_ranks, _of_this_start(store, rank, n_ranks))


@contextlib.contextmanager
def joined(device: torch.device, peers: Peers | None = None) -> Iterator[Group]:
    """Join the other processes of the run, and part in the end.

    Args:
        device: Where this process computes: gloo on a CPU, NCCL on a GPU.
        peers: The processes, where they have met.

    Raises:
        ConfigError: They cannot be reached.
    """
    backend, peers = "nccl" if device.type == "cuda" else "gloo", peers or meet()
    with _not_met_named(f" with {backend}"):
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(backend, store=peers.store, rank=peers.rank, world_size=peers.n_ranks, timeout=_TIMEOUT)
    try:
        yield Group(device)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _of_this_start(store: Store, rank: int, n_ranks: int) -> Store:
    """Return the part of a store that belongs to this start of the processes.

    torchrun keeps its store when it starts all processes again, addresses of before included, and on several machines
    each counts the starts in its own way. So a process calls by a name that was never used, and the first one answers.
    """
    if rank:
        name = secrets.token_hex(8)
        store.set(f"gru4rec/caller {rank}", name)
        own = PrefixStore(store.get(f"gru4rec/answer to {name}").decode(), store)
        own.add(_ARRIVED, 1)
        return own
    prefix, until = f"gru4rec/{secrets.token_hex(8)}", time.monotonic() + _TIMEOUT.total_seconds()
    own = PrefixStore(prefix, store)
    while (n_arrived := own.add(_ARRIVED, 0)) < n_ranks - 1:
        if time.monotonic() > until:
            raise RuntimeError(f"{n_ranks - 1 - n_arrived} of {n_ranks} did not come")
        for caller in (f"gru4rec/caller {number}" for number in range(1, n_ranks)):
            if store.check([caller]):  # may be of before: the next one of that number will write over it
                store.set(f"gru4rec/answer to {store.get(caller).decode()}", prefix)
        time.sleep(_LOOK_EVERY_S)
    return own


@contextlib.contextmanager
def _not_met_named(how: str = "") -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the processes of the run do not find each other through {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')}{how}: {_said(error)}. Start them with "
            "torchrun, and check addresses and firewalls"
        ) from None


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
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if wants_gpu else name


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
