"""Adagrad with momentum, on dense weights and on touched rows of item matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gru4rec.errors import ConfigError
from gru4rec.train.kernels.torch_ops import update_dense, update_rows


class IndexedAdagradM(torch.optim.Optimizer):
    """Adagrad with classical momentum that reads and writes only the rows of item matrices that a step touched.

    For a gradient g: A += g^2; v = momentum v - lr g / sqrt(A + eps); w += v. A and v start at 0; without momentum
    there is no v. Rows that a step does not touch keep A, v and w.

    Args:
        params: Weights. :meth:`step` updates those that have a gradient as a whole; item matrices have none, and are
            updated by :meth:`step_rows`.
        lr: Step size, > 0.
        momentum: Share of the last update that is repeated, 0 up to 1.
        eps: Added inside the root.

    References:
        Duchi, Hazan and Singer, JMLR 12, 2011, for Adagrad.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float = 0.05, momentum: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group of weights. The inherited way loads torch's compiler, which costs a second at the start.

        Raises:
            ConfigError: A second group; settings hold for all weights.
        """
        if self.param_groups:
            raise ConfigError("IndexedAdagradM has one group of settings for all weights. Make one optimiser for each")
        self.param_groups.append({**self.defaults, **param_group, "params": list(param_group["params"])})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every dense weight that has a gradient.

        Args:
            closure: Not supported: a closure would run the step again, which this optimiser has no use for.
        """
        if closure is not None:
            raise TypeError("IndexedAdagradM takes no closure. Call backward() first, then step()")
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                accumulator, velocity = self.state_of(weight)
                update_dense(weight, accumulator, velocity, weight.grad, **self.update_settings)

    @torch.no_grad()
    def step_rows(self, table: Tensor, item_idx_R: Tensor, gradient_RD: Tensor) -> None:
        """Update the rows of an item matrix that occur in ``item_idx_R``, gradients of equal rows summed first.

        Args:
            table: Item matrix (N, D), one of ``params``.
            item_idx_R: Int64 (R,), may repeat.
            gradient_RD: Float (R, D).
        """
        accumulator, velocity = self.state_of(table)
        update_rows(table, accumulator, velocity, item_idx_R, gradient_RD, None, **self.update_settings)

    @property
    def update_settings(self) -> dict[str, float]:
        """The settings of one update, for item matrices too: lr, momentum and eps."""
        return {name: self.param_groups[0][name] for name in ("lr", "momentum", "eps")}

    def state_of(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the accumulator and, with momentum, the velocity of a weight; zeros at its first use."""
        state = self.state[weight]
        if not state:
            state["accumulator"] = torch.zeros_like(weight, requires_grad=False)
            if self.param_groups[0]["momentum"] > 0:
                state["velocity"] = torch.zeros_like(weight, requires_grad=False)
        return state["accumulator"], state.get("velocity")
