"""Which step trains: the plain one, which is the definition, or a fast one that computes the same."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from gru4rec.config import ENGINES, PRECISIONS, TABLES, Engine, HyperParameters, Precision, Tables
from gru4rec.errors import ConfigError
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.fast_step import FastStep
from gru4rec.train.gpu_step import GPUStep
from gru4rec.train.host_tables import HostTablesStep
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.step import LossFunction, PlainStep, Step

_log = logging.getLogger("gru4rec")


def choose_engine(engine: Engine, precision: Precision, *, on_cpu: bool, own_loss: bool) -> Engine:
    """Return ``fast`` or ``plain``; refuse what no step can do.

    Args:
        engine: ``auto`` is the fast step, and the plain one for a loss of the caller's own.
        precision: Of the matrix products.
        on_cpu: Whether training runs on a CPU.
        own_loss: Whether the loss is a function of the caller's own, whose gradient only autograd knows.

    Raises:
        ConfigError: An unknown name, or a pair that does not go together.
    """
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine {engine!r}. Choose from {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}. Choose from {', '.join(PRECISIONS)}")
    if own_loss and engine == "fast":
        raise ConfigError("engine=fast knows the two losses' gradients only. Give engine=plain for a loss of your own")
    if precision != "float32" and own_loss:
        raise ConfigError(f"precision={precision} goes with the two known losses only. Give precision=float32")
    if precision != "float32" and engine == "plain":
        raise ConfigError(f"precision={precision} needs the fast engine. Give engine=fast, or precision=float32")
    if precision == "tf32" and on_cpu:
        raise ConfigError("precision=tf32 is a mode of NVIDIA GPUs. Give precision=bf16 or float32 on a CPU")
    return "plain" if engine == "plain" or own_loss else "fast"


def check_tables(tables: Tables, engine: Engine, settings: HyperParameters, *, on_cpu: bool) -> None:
    """Refuse item matrices in host memory where they would be of no use.

    Args:
        tables: ``host`` or ``device``.
        engine: From :func:`choose_engine`.
        settings: Of the model.
        on_cpu: Whether training runs on a CPU.

    Raises:
        ConfigError: An unknown name, or what does not go together.
    """
    if tables not in TABLES:
        raise ConfigError(f"unknown tables {tables!r}. Choose from {', '.join(TABLES)}")
    if tables == "device":
        return
    if on_cpu:
        raise ConfigError("tables=host is for GPUs: a CPU has them in host memory anyway. Leave it out")
    if engine == "plain":
        raise ConfigError("tables=host needs the fast engine. Leave engine=plain and losses of your own out")
    if settings.n_sample == "all":
        raise ConfigError(
            "tables=host moves the rows that a step touches, and n_sample=all touches all. Give a number for n_sample"
        )


def new_step(
    engine: Engine,
    model: GRU4RecModel,
    optimizer: IndexedAdagradM,
    loss_function: LossFunction,
    log_support_N: Tensor,
    *,
    n_lanes: int,
    n_steps: int | None = None,
    precision: Precision = "float32",
    own_loss: bool = False,
    device: torch.device | None = None,
) -> Step:
    """Return the step that an engine's name stands for; arguments as for :func:`choose_engine` and the steps.

    With ``device`` that of :class:`gru4rec.train.host_tables.HostTablesStep`.
    """
    on_cpu, batch_size = (device or model.device).type == "cpu", model.settings.batch_size
    if choose_engine(engine, precision, on_cpu=on_cpu, own_loss=own_loss) == "plain":
        return PlainStep(model, optimizer, loss_function, n_lanes=n_lanes, batch_size=batch_size)
    if precision == "bf16" and on_cpu and not _has_bf16():
        _log.warning("this CPU has no instructions for bfloat16: precision=bf16 will be slower than float32")
    if device is not None:
        return HostTablesStep(
            model,
            optimizer,
            log_support_N,
            device=device,
            n_lanes=n_lanes,
            batch_size=batch_size,
            n_steps=n_steps,
            precision=precision,
        )
    if not on_cpu and model.settings.n_sample != "all":
        return GPUStep(
            model,
            optimizer,
            log_support_N,
            n_lanes=n_lanes,
            batch_size=batch_size,
            n_steps=n_steps,
            precision=precision,
        )
    return FastStep(model, optimizer, log_support_N, n_lanes=n_lanes, batch_size=batch_size, precision=precision)


def _has_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 numbers by itself."""
    return bool(torch.backends.mkldnn.is_available()) and bool(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
