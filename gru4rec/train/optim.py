"""Adagrad with momentum, on dense weights and on touched rows of item matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every dense weight that has a gradient.

        Args:
            closure: Not supported: a closure would run the step again, which this optimiser has no use for.
        """
        if closure is not None:
            raise TypeError("IndexedAdagradM takes no closure. Call backward() first, then step()")
        for weight in self._settings["params"]:
            if weight.grad is not None:
                accumulator, velocity = self._state_of(weight)
                weight.add_(self._update(weight.grad, accumulator, velocity))

    @torch.no_grad()
    def step_rows(self, table: Tensor, item_idx_R: Tensor, gradient_RD: Tensor) -> None:
        """Update the rows of an item matrix that occur in ``item_idx_R``, gradients of equal rows summed first.

        Args:
            table: Item matrix (N, D), one of ``params``.
            item_idx_R: Int64 (R,), may repeat.
            gradient_RD: Float (R, D).
        """
        touched_U, place_R = torch.unique(item_idx_R, return_inverse=True)
        summed_UD = torch.zeros(len(touched_U), table.shape[1], dtype=table.dtype, device=table.device)
        summed_UD.index_add_(0, place_R, gradient_RD)
        accumulator, velocity = self._state_of(table)
        # index_select and index_copy_ move whole rows; indexing with brackets is several times slower on a CPU
        accumulator_UD = accumulator.index_select(0, touched_U)
        velocity_UD = None if velocity is None else velocity.index_select(0, touched_U)
        update_UD = self._update(summed_UD, accumulator_UD, velocity_UD)
        table.index_copy_(0, touched_U, table.index_select(0, touched_U).add_(update_UD))
        accumulator.index_copy_(0, touched_U, accumulator_UD)
        if velocity is not None and velocity_UD is not None:
            velocity.index_copy_(0, touched_U, velocity_UD)

    @property
    def _settings(self) -> dict[str, Any]:
        """The one parameter group: its settings hold for item matrices too."""
        return self.param_groups[0]

    def _state_of(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the accumulator and, with momentum, the velocity of a weight; zeros at its first use."""
        state = self.state[weight]
        if not state:
            state["accumulator"] = torch.zeros_like(weight, requires_grad=False)
            if self._settings["momentum"] > 0:
                state["velocity"] = torch.zeros_like(weight, requires_grad=False)
        return state["accumulator"], state.get("velocity")

    def _update(self, gradient: Tensor, accumulator: Tensor, velocity: Tensor | None) -> Tensor:
        """Advance accumulator and velocity in place; return what to add to the weight."""
        accumulator.add_(gradient**2)
        update = gradient * -self._settings["lr"] / torch.sqrt(accumulator + self._settings["eps"])
        return update if velocity is None else velocity.mul_(self._settings["momentum"]).add_(update)
