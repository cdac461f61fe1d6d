"""The fast step on a GPU: fixed shapes, captured once as a CUDA graph and replayed, so that no step waits for Python.

It computes what :class:`gru4rec.train.step.PlainStep` does, sums taken in another order. All lanes take part in every
step, empty ones masked. Dimensions: B lanes, S sampled negatives, M = B + S score columns, C steps.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from gru4rec.config import HyperParameters, Precision
from gru4rec.data.batches import SessionDataIterator
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.columns import loss_and_gradients
from gru4rec.train.gpu_plan import Chunk, ChunkPlan
from gru4rec.train.kernels import torch_ops
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products, gpu_products
from gru4rec.train.stack import LayerStack

UNITS_PER_REPLAY = 1
"""Updates, each with the steps before it, that one graph holds."""

_WARM_UPS = 3


def gpu_kernels(dtype: torch.dtype) -> ModuleType:
    """Return Triton's kernels, or the ones in torch where Triton is not installed or would round settings."""
    if importlib.util.find_spec("triton") is None:
        return torch_ops
    kernels = importlib.import_module("gru4rec.train.kernels.triton_ops")
    return kernels if dtype == torch.float32 or kernels.EXACT_IN_FLOAT64 else torch_ops


def steps_between_updates(settings: HyperParameters, n_steps: int | None) -> int:
    """Return how many steps' gradients wait at once in epochs of ``n_steps``, None if that is not known."""
    return settings.grad_accumulation if n_steps is None else min(settings.grad_accumulation, n_steps)


@dataclass(frozen=True)
class _Place:
    """Where one of the steps between two updates finds its numbers and leaves its row gradients and its loss."""

    input_idx: Tensor
    going_on: Tensor
    target: Tensor
    is_left_out: Tensor
    column_idx: Tensor
    d_columns: Tensor
    d_bias: Tensor
    d_input: Tensor
    losses_U: Tensor


class GPUStep:
    """The fast step on a GPU, with sampled negatives; see :class:`gru4rec.train.step.Step`.

    Steps run a chunk ahead of the losses that :meth:`epoch` yields, so that the GPU does not wait for its caller.
    Settings of the optimiser are read when a chunk begins.

    Args:
        model: Weights, trained in place.
        optimizer: Holds accumulators and momentum.
        log_support_N: Log of each item's training events, for the logq correction.
        n_lanes: Lanes of the schedule.
        batch_size: Nominal batch size, what losses are divided by; at least ``n_lanes``.
        n_steps: Steps of an epoch, if known: no more gradients wait than that.
        max_steps: Steps that are laid out at once, at most; None: as many as are of use.
        precision: Of the matrix products.
        kernels: Element-wise parts; if None Triton's, or on a CPU those in torch.
        capture: Whether steps become a CUDA graph. A CPU, where tests run, runs them one by one.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        log_support_N: Tensor,
        *,
        n_lanes: int,
        batch_size: int,
        n_steps: int | None = None,
        max_steps: int | None = None,
        precision: Precision = "float32",
        kernels: ModuleType | None = None,
        capture: bool = True,
    ) -> None:
        self.model, self.optimizer, self._device, settings = model, optimizer, model.device, model.settings
        assert settings.n_sample != "all"
        n_waiting = steps_between_updates(settings, n_steps)
        n_sample, on_gpu = settings.n_sample, self._device.type == "cuda"
        self._captures, self._precision = capture and on_gpu, precision
        self._kernels = kernels or (gpu_kernels(model.dtype) if on_gpu else torch_ops)
        self._products, self._share = Products(precision), 1 / batch_size
        self._log_support_N = log_support_N if settings.corrects_sampling else None
        self._stack = LayerStack(model, optimizer, self._kernels, self._products, n_lanes=n_lanes)
        new = model.Wy.weight.new_zeros
        self._rows = new(n_lanes + n_sample, settings.layers[-1])
        self._scores, self._offset = new(n_lanes, n_lanes + n_sample), new(n_lanes + n_sample)
        self._plan = ChunkPlan(
            n_items=model.n_items, n_lanes=n_lanes, n_sample=n_sample, n_waiting=n_waiting,
            is_shared=model.input_table is model.Wy, device=self._device, max_steps=max_steps,
        )  # fmt: skip
        self._unit = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._losses_UW = new(self._plan.n_steps // n_waiting, n_waiting)
        self._places, self._row_updates = self._new_places(n_waiting, n_lanes, n_lanes + n_sample)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._captured_settings: dict[str, float] = {}

    def _new_places(
        self, n_waiting: int, n_lanes: int, n_columns: int
    ) -> tuple[list[_Place], list[tuple[Tensor | None, ...]]]:
        """Make room for the row gradients of a unit; returns also the arguments of ``update_segments``."""
        model, plan = self.model, self._plan
        weight, table = model.Wy.weight, model.input_table.weight
        n_inputs, n_columns_waiting = n_waiting * n_lanes, n_waiting * n_columns
        d_rows = weight.new_zeros(n_columns_waiting + n_inputs * (table is weight), weight.shape[1])
        d_bias = weight.new_zeros(n_columns_waiting, 1)
        updates = [(weight, plan.outputs, d_rows), (model.By.weight, plan.outputs, d_bias)]
        d_inputs = d_rows[n_columns_waiting:]
        if table is not weight:
            d_inputs = weight.new_zeros(n_inputs, table.shape[1])
            updates.append((table, plan.inputs, d_inputs))
        d_columns, d_biases = (torch.split(d, n_columns) for d in (d_rows[:n_columns_waiting], d_bias[:, 0]))
        fields = plan.input_idx, plan.going_on.unsqueeze(2), plan.target, plan.is_left_out, plan.column_idx
        places = zip(*fields, d_columns, d_biases, torch.split(d_inputs, n_lanes), self._losses_UW.T, strict=True)
        return [_Place(*tensors) for tensors in places], [
            (rows, *self.optimizer.state_of(rows), *segments, gradient) for rows, segments, gradient in updates
        ]

    def epoch(self, batches: SessionDataIterator, first_step: int = 0) -> Iterator[Tensor]:
        """See :class:`gru4rec.train.step.Step`; losses come on the CPU, and an epoch starts at its start only."""
        assert first_step == 0
        ends_T = batches.schedule.ends_T
        self._stack.forget()
        arrived = None
        for first in range(0, batches.n_steps, self._plan.n_steps):
            chunk = self._plan.take(batches, first, ends_T)
            with self._at_work():
                self._plan.lay_out(self._ready(chunk))
                self._run(-(-chunk.n_steps // len(self._places)))
                on_their_way = self._send_losses(chunk.n_steps)
            if arrived is not None:
                yield arrived()
            arrived = on_their_way
        if arrived is not None:
            yield arrived()

    def state(self) -> None:
        """Return None: steps run ahead, so training goes on from the ends of epochs only."""

    def restore(self, hidden: Sequence[Tensor]) -> None:
        """See :class:`gru4rec.train.step.Step`; an epoch starts with states of its own."""

    def _ready(self, chunk: Chunk) -> Chunk:
        """Return a chunk whose items are named by rows of ``model``'s item matrices: here they are as they come."""
        return chunk

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Use the model's GPU, with products as precise as asked for; capture what has to be captured."""
        if self._device.type != "cuda":
            yield
            return
        with torch.cuda.device(self._device), gpu_products(self._precision):
            if self._captures and self._captured_settings != self.optimizer.update_settings:
                self._capture()
            yield

    def _run(self, n_units: int) -> None:
        """Run the first units of the plan."""
        self._unit.zero_()
        for size in sorted(self._graphs, reverse=True):
            for _ in range(n_units // size):
                self._graphs[size].replay()
            n_units %= size
        if not self._captures:
            for _ in range(n_units):
                self._run_unit()

    def _send_losses(self, n_steps: int) -> Callable[[], Tensor]:
        """Start to copy losses to the CPU; returns what waits for them."""
        losses_C = self._losses_UW.view(-1)[:n_steps]
        if self._device.type != "cuda":
            copy = losses_C.clone()
            return lambda: copy
        pinned = torch.empty(n_steps, dtype=losses_C.dtype, pin_memory=True)
        pinned.copy_(losses_C, non_blocking=True)
        event = torch.cuda.current_stream().record_event()

        def arrived() -> Tensor:
            event.synchronize()
            return pinned

        return arrived

    def _capture(self) -> None:
        """Capture the steps up to an update, with the settings of now."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._warm_up()
        current.wait_stream(side)
        graphs = {}
        for n_units in {1, UNITS_PER_REPLAY}:
            graphs[n_units] = graph = torch.cuda.CUDAGraph()
            if self.model.rng is not None:
                graph.register_generator_state(self.model.rng)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                for _ in range(n_units):
                    self._run_unit()
        self._graphs, self._captured_settings = graphs, self.optimizer.update_settings

    def _warm_up(self) -> None:
        """Run on empty lanes, so that all is compiled and allocated; nothing that training reads changes.

        Empty lanes touch no row, but momentum moves dense weights even so, lanes have a state, and masks are drawn.
        """
        rng, dense = self.model.rng, itertools.chain.from_iterable(self._stack.dense_updates)
        changed = [*self._stack.out, *(values for values in dense if values is not None)]
        before = [values.clone() for values in changed]
        rng_state = None if rng is None else rng.get_state()
        self._plan.clear()
        for _ in range(_WARM_UPS):
            self._unit.zero_()
            self._run_unit()
        for values, old in zip(changed, before, strict=True):
            values.copy_(old)
        if rng is not None and rng_state is not None:
            rng.set_state(rng_state)

    def _run_unit(self) -> None:
        """Run the steps up to and with the next update, on buffers alone: this is what is captured."""
        self._plan.read(self._unit)
        for place in self._places:
            hidden = self._stack.forward(place.input_idx, place.going_on)
            loss = self._score(place, hidden)
            place.losses_U.index_copy_(0, self._unit, loss.reshape(1))
            self._stack.backward(place.d_input)
        self._update()
        self._unit += 1

    def _score(self, place: _Place, hidden: Tensor) -> Tensor:
        """Return the loss; leave the last layer's gradient in the stack and the columns' in their row gradients."""
        kernels, settings, model = self._kernels, self.model.settings, self.model
        scales = settings.logq, settings.logq * settings.sample_alpha
        kernels.column_offsets(
            model.By.weight, place.column_idx, place.is_left_out, self._log_support_N, *scales, self._offset
        )
        kernels.gather(model.Wy.weight, place.column_idx, self._rows)
        arguments = self._scores, self._offset, place.target, self._share, place.d_bias
        return loss_and_gradients(
            settings, kernels, self._products, hidden, self._rows, arguments, place.d_columns, self._stack.d_out[-1]
        )

    def _update(self) -> None:
        """Update each weight once with the waiting gradients' sum over grad_accumulation."""
        share = 1 / self.model.settings.grad_accumulation
        self._stack.update(share)
        for rows in self._row_updates:
            self._kernels.update_segments(*rows, share=share, **self.optimizer.update_settings)
