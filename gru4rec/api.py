"""The class users know: GRU4Rec, with fit, savemodel, loadmodel and recommend, over the parts of this package."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gru4rec.bundle import Bundle, Status, load_bundle, save_bundle
from gru4rec.config import Engine, HyperParameters, Precision, Tables, hyper_parameters, setting_values
from gru4rec.data.batches import Negatives, SessionDataIterator
from gru4rec.data.files import Columns
from gru4rec.data.negatives import CheckedNegatives, SampleStore
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError, DataError, DivergedError
from gru4rec.evaluate.evaluator import check_cutoffs, evaluate
from gru4rec.evaluate.ranks import TieMode
from gru4rec.model.device import cpu_threads, denormals_flushed, resolve_device, threads_that_help
from gru4rec.model.initial import initialise
from gru4rec.model.losses import bpr_max_loss, cross_entropy_loss, elu
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import GRUScorer, check_finite
from gru4rec.serve.recommender import Exclude, LiveSession, Recommendations, Recommender
from gru4rec.train.checkpoint import optimizer_state
from gru4rec.train.engine import check_tables, choose_engine, new_step
from gru4rec.train.gpu_plan import CHUNK_STEPS
from gru4rec.train.loop import EpochReport, Position, Recorder, Training, train
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.step import LossFunction

_log = logging.getLogger("gru4rec")


class GRU4Rec:
    """A GRU4Rec model: settings, then after :meth:`fit` or :meth:`loadmodel` weights and vocabulary.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Number type of weights and training.
        **settings: Hyper-parameters by name; see :class:`gru4rec.config.HyperParameters`.

    Attributes:
        settings: The checked hyper-parameters.
        model: The network, None before training.
        items: The vocabulary, None before training.
        training_state: Accumulators and velocities by name, where they were kept.

    Raises:
        ConfigError: An unknown or wrong setting.
        DeviceError: The device is not there.

    Example:
        >>> gru = GRU4Rec(layers=[16], n_epochs=1, n_sample=32, device="cpu")
        >>> gru.settings.layers
        (16,)
    """

    def __init__(
        self, *, device: str | torch.device = "auto", dtype: torch.dtype = torch.float32, **settings: Any
    ) -> None:
        self.settings: HyperParameters = hyper_parameters(settings)
        if dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"dtype={dtype} cannot be saved. Give torch.float32 or torch.float64")
        self.device = resolve_device(str(device))
        self.dtype = dtype
        self.model: GRU4RecModel | None = None
        self.items: Vocabulary | None = None
        self.support: np.ndarray | None = None
        self.status: Status = "finished"
        self.n_epochs_done = 0
        self.training_state: Mapping[str, np.ndarray] | None = None
        self._recommender: Recommender | None = None
        self._log_support_N: Tensor | None = None

    def set_params(self, /, **settings: Any) -> GRU4Rec:
        """Change settings for the next :meth:`fit`; those not named keep their values, and so does a trained model.

        Raises:
            ConfigError: An unknown or wrong setting.
        """
        self.settings = hyper_parameters({**setting_values(self.settings), **settings})
        return self

    def fit(
        self,
        data: Any,
        sample_cache_max_size: int = 10_000_000,
        item_key: str = "ItemId",
        session_key: str = "SessionId",
        time_key: str = "Time",
        *,
        checkpoint_path: str | Path | None = None,
        initial_weights: Mapping[str, np.ndarray] | None = None,
        negatives: Negatives | None = None,
        on_epoch: Callable[[EpochReport], None] = _log.info,
        on_step: Callable[[int], None] | None = None,
        threads: int | None = None,
        engine: Engine = "auto",
        precision: Precision = "float32",
        tables: Tables = "device",
        recorder: Recorder | None = None,
        keep_state: bool = False,
    ) -> GRU4Rec:
        """Train from scratch, or where the recorder goes on.

        Args:
            data: Sessions, a path (of a log or a session map), or a pandas, polars or Arrow table; it is not changed.
            sample_cache_max_size: Negatives drawn at once, in ids. Changes memory, not results.
            item_key: Column of item ids.
            session_key: Column of session ids.
            time_key: Column of times.
            checkpoint_path: Write the weights there after every epoch but the last.
            initial_weights: Start from these, by name as in ``model.state_dict()``, instead of drawn ones.
            negatives: Where each step's negatives come from, instead of a :class:`SampleStore`.
            on_epoch: Called with each epoch's report; ``print`` gives the known lines.
            on_step: Called every now and then with the number of events trained on since.
            threads: CPU threads of this call; None takes one for small models, which more only slow down.
            engine: ``plain`` is the readable step, ``fast`` the one that computes the same several times faster;
                ``auto`` is fast, or plain where a subclass has a loss of its own.
            precision: Of the matrix products: ``float32``, ``bf16``, or ``tf32`` on a GPU. Weights stay as they are.
            tables: Where item matrices and their accumulators are while a GPU trains: ``device``, or ``host``: rows
                that are touched visit the GPU, with the same results, and the model stays on the CPU.
            recorder: Watches the run, keeps checkpoints and goes on from one, such as a
                :class:`gru4rec.runs.recorder.RunRecorder`.
            keep_state: Keep the optimiser's accumulators and velocities, in the model file too, for updates to go on
                with; the file is two or three times as large.

        Returns:
            This object.

        Raises:
            ConfigError: The engine cannot do what is asked.
            DataError: The log cannot be used.
            DivergedError: The loss stopped being a number. The object is marked, and refuses to recommend.
        """
        self.choose_engine(engine, precision, tables)
        sessions = self._sessions(data, Columns(session_key=session_key, item_key=item_key, time_key=time_key))
        support = sessions.support()
        batches = self._batches(sessions, support, sample_cache_max_size, negatives)
        self.items, self.support, self.model, self._recommender = sessions.items, support, None, None
        self._log_support_N = None
        self.n_epochs_done, self.status, self.training_state = 0, "checkpoint", None

        def finish_epoch(report: EpochReport) -> None:
            assert self.model is not None
            self.check_finite()  # the loss of a step does not see what its update does
            self.n_epochs_done = report.epoch
            on_epoch(report)
            if checkpoint_path is not None and report.epoch < self.settings.n_epochs:
                self.savemodel(checkpoint_path)

        try:
            with cpu_threads(threads or threads_that_help(self.settings)), denormals_flushed():
                self.model = self._new_model(initial_weights, tables)
                training = self._training(batches, engine, precision, tables)
                start = Position() if recorder is None else recorder.begin(training)
                self.n_epochs_done = start.epoch - 1
                train(
                    training,
                    n_epochs=self.settings.n_epochs,
                    on_epoch=finish_epoch,
                    on_step=on_step,
                    start=start,
                    recorder=recorder,
                )
                if keep_state:
                    self.training_state = optimizer_state(training)
        except DivergedError as error:
            self.status = "diverged"
            raise DivergedError(f"{error}. {self._last_good(checkpoint_path)}") from None
        self.status = "finished"
        return self

    def check_finite(self) -> None:
        """Make sure that all weights are numbers.

        Raises:
            ConfigError: The model is not trained.
            DivergedError: A weight is not a finite number.
        """
        check_finite(self._trained()[0])

    def choose_engine(
        self, engine: Engine = "auto", precision: Precision = "float32", tables: Tables = "device"
    ) -> Engine:
        """Return the engine that :meth:`fit` would train with, ``fast`` or ``plain``.

        Raises:
            ConfigError: It cannot do what is asked.
        """
        if precision != "float32" and self.dtype == torch.float64:
            raise ConfigError(
                f"precision={precision} beside dtype=float64 would round its products. Leave one of them out"
            )
        if self._has_own_loss and self.settings.n_sample == "all":
            try:
                inspect.signature(self._loss).bind(None, None, target_A=None)
            except TypeError:
                raise ConfigError(
                    f"n_sample=all needs a loss that takes target_A=, and {self._loss} does not. Add it, or sample"
                ) from None
        on_cpu = self.device.type == "cpu"
        chosen = choose_engine(engine, precision, on_cpu=on_cpu, own_loss=self._has_own_loss)
        check_tables(tables, chosen, self.settings, on_cpu=on_cpu)
        return chosen

    def has_loss_of(self, other: GRU4Rec) -> bool:
        """Tell whether this object computes its loss with the same method as another one."""
        return getattr(self._loss, "__func__", None) is getattr(other._loss, "__func__", self)

    def loss_fn_cross_entropy(self, scores_AM: Tensor, column_idx_M: Tensor, target_A: Tensor | None = None) -> Tensor:
        """Return the cross-entropy summed over lanes (A of them), with the logq correction.

        Args:
            scores_AM: Float (A, M), from the common forward.
            column_idx_M: Int64 (M,), item of each column: A targets, then the sampled negatives; or all items.
            target_A: Int64 (A,), each lane's target column. None: column a is lane a's.
        """
        logq = self.settings.logq
        if logq == 0:
            return cross_entropy_loss(scores_AM, target_B=target_A)
        log_p_M = self._log_support()[column_idx_M]
        log_p_M[len(scores_AM) :] *= self.settings.sample_alpha
        return cross_entropy_loss(scores_AM, log_p_M=log_p_M, logq=logq)

    def loss_fn_bpr_max(self, scores_AM: Tensor, column_idx_M: Tensor, target_A: Tensor | None = None) -> Tensor:
        """Return BPR-max summed over lanes, on scores through ELU; arguments as for :meth:`loss_fn_cross_entropy`."""
        scores_AM = elu(scores_AM, elu_param=self.settings.elu_param)
        return bpr_max_loss(scores_AM, target_B=target_A, bpreg=self.settings.bpreg)

    def savemodel(self, path: str | Path) -> None:
        """Write the model to one file that loads without executing anything (docs/model-format.md).

        Raises:
            ConfigError: There is nothing to save yet.
            ModelFileError: The path cannot be written; an old file there stays as it was.
        """
        save_bundle(self.bundle(), path)

    def take_weights(self, path: str | Path) -> None:
        """Put the weights of a saved model into this one, which was trained on the same items with the same settings.

        Raises:
            ConfigError: The model is not trained.
            ModelFileError: The file cannot be used.
        """
        model, _, _ = self._trained()
        model.load_state_dict(load_bundle(path).restore(device=model.device).state_dict())

    def bundle(self) -> Bundle:
        """Return what a model file holds. On a CPU its weights share memory with the model.

        Raises:
            ConfigError: The model is not trained.
        """
        model, items, support = self._trained()
        weights = {name: weight.detach().cpu().numpy() for name, weight in model.state_dict().items()}
        return Bundle(model.settings, weights, items, support, self.status, self.n_epochs_done, self.training_state)

    @classmethod
    def loadmodel(cls, path: str | Path, device: str | torch.device = "auto") -> GRU4Rec:
        """Read a model file.

        Raises:
            ModelFileError: The file cannot be used; the message says why.
            DivergedError: The model in it diverged in training.
        """
        return cls.from_bundle(load_bundle(path), device)

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str | torch.device = "auto") -> GRU4Rec:
        """Return the model that a bundle holds.

        Raises:
            DivergedError: It diverged in training.
        """
        gru = cls(device=device, **setting_values(bundle.settings))
        gru.model = bundle.restore(device=gru.device)
        gru.dtype = gru.model.dtype
        gru.items, gru.support = bundle.items, bundle.support
        gru.status, gru.n_epochs_done = bundle.status, bundle.n_epochs_done
        gru.training_state = bundle.training_state
        return gru

    def to(self, device: str | torch.device) -> GRU4Rec:
        """Move the model to a device.

        Raises:
            DeviceError: The device is not there.
        """
        self.device = resolve_device(str(device))
        self._recommender = None
        if self.model is not None:
            self.model.to(self.device)
        return self

    def scorer(self) -> GRUScorer:
        """Return the model as a scorer, for evaluation.

        Raises:
            ConfigError: The model is not trained.
            DivergedError: It diverged in training.
        """
        return GRUScorer(self._usable()[0])

    def recommend(self, items: Any, k: int = 20, *, exclude: Exclude = None, allow: Any = None) -> Recommendations:
        """Recommend the next items of a session given as a list of item ids; see :class:`Recommender`."""
        return self.recommender().recommend(items, k, exclude=exclude, allow=allow)

    def recommend_batch(
        self, sessions: Any, k: int = 20, *, exclude: Exclude = None, allow: Any = None
    ) -> list[Recommendations]:
        """Recommend the next items of several sessions; see :class:`Recommender`."""
        return self.recommender().recommend_batch(sessions, k, exclude=exclude, allow=allow)

    def session(self) -> LiveSession:
        """Start a session that is told its clicks one by one: one GRU step a click."""
        return self.recommender().session()

    def recommender(self) -> Recommender:
        """Return the model as a recommender.

        Raises:
            ConfigError: The model is not trained.
            DivergedError: It diverged in training.
        """
        model, items, support = self._usable()
        if self._recommender is None:
            self._recommender = Recommender(GRUScorer(model), items, support)
        return self._recommender

    def _trained(self) -> tuple[GRU4RecModel, Vocabulary, np.ndarray]:
        if self.model is None or self.items is None or self.support is None:
            raise ConfigError(
                "the model is not trained. Call fit(data) first, or load one with GRU4Rec.loadmodel(path)"
            )
        return self.model, self.items, self.support

    def _usable(self) -> tuple[GRU4RecModel, Vocabulary, np.ndarray]:
        if self.status == "diverged":
            raise DivergedError("this model diverged in training: its weights are of no use. Train it again")
        return self._trained()

    def _sessions(self, data: Any, columns: Columns) -> Sessions:
        return data if isinstance(data, Sessions) else load_sessions(data, columns=columns)

    def _batches(
        self, sessions: Sessions, support: np.ndarray, cache_size: int, negatives: Negatives | None
    ) -> SessionDataIterator:
        settings = self.settings
        if settings.n_sample == "all":
            if negatives is not None:
                raise ConfigError("n_sample=all samples nothing, so negatives= has no effect. Leave it out")
            if sessions.items.n_items < 2:
                raise DataError(f"{sessions.source} has one item, so n_sample=all leaves no negative. Use a longer log")
            return SessionDataIterator(sessions, batch_size=settings.batch_size)
        if self.device.type == "cuda":  # short draws, while the GPU works on the steps before
            cache_size = min(cache_size, CHUNK_STEPS * settings.n_sample)
        if negatives is None:
            store = self._new_store(
                support,
                n_sample=settings.n_sample,
                sample_alpha=settings.sample_alpha,
                cache_size=cache_size,
                rng=np.random.default_rng([settings.draw_seed, 1]),
            )
            batches = SessionDataIterator(sessions, batch_size=settings.batch_size, negatives=store)
            store.expect_steps(batches.n_steps * settings.n_epochs)
            return batches
        checked = CheckedNegatives(negatives, n_sample=settings.n_sample, n_items=sessions.items.n_items)
        return SessionDataIterator(sessions, batch_size=settings.batch_size, negatives=checked)

    def _new_store(self, support: np.ndarray, **options: Any) -> SampleStore:
        return SampleStore(support, **options)

    def _new_model(self, initial_weights: Mapping[str, np.ndarray] | None, tables: Tables = "device") -> GRU4RecModel:
        """Build the network and its weights; dropout masks get a generator of their own, where training runs."""
        assert self.items is not None
        rng = torch.Generator(device=self.device).manual_seed(self.settings.draw_seed)
        model = GRU4RecModel(self.items.n_items, self.settings, rng=rng)
        model.to(device="cpu" if tables == "host" else self.device, dtype=self.dtype)
        if initial_weights is None:
            initialise(model, seed=self.settings.seed)
        else:
            model.load_state_dict({name: torch.as_tensor(np.asarray(array)) for name, array in initial_weights.items()})
        return model.train()

    def _training(
        self, batches: SessionDataIterator, engine: Engine, precision: Precision, tables: Tables = "device"
    ) -> Training:
        model, _, _ = self._trained()
        optimizer = IndexedAdagradM(model.parameters(), lr=self.settings.learning_rate, momentum=self.settings.momentum)
        step = new_step(
            engine,
            model,
            optimizer,
            self._loss,
            self._log_support(),
            n_lanes=batches.n_lanes,
            n_steps=batches.n_steps,
            precision=precision,
            own_loss=self._has_own_loss,
            device=self.device if tables == "host" else None,
        )
        return Training(model, optimizer, step, batches)

    @property
    def _loss(self) -> LossFunction:
        return self.loss_fn_cross_entropy if self.settings.loss == "cross-entropy" else self.loss_fn_bpr_max

    @property
    def _has_own_loss(self) -> bool:
        """Whether a subclass, or a function put on this object, computes the loss in its own way."""
        known = GRU4Rec.loss_fn_cross_entropy if self.settings.loss == "cross-entropy" else GRU4Rec.loss_fn_bpr_max
        return getattr(self._loss, "__func__", None) is not known

    def _log_support(self) -> Tensor:
        """Return log(support) of all items, (N,), on the model's device."""
        model, _, support = self._trained()
        if self._log_support_N is None or self._log_support_N.device != model.device:
            log_support_N = np.log(np.maximum(support, 1))
            self._log_support_N = torch.as_tensor(log_support_N, dtype=self.dtype, device=model.device)
        return self._log_support_N

    def _last_good(self, checkpoint_path: str | Path | None) -> str:
        if checkpoint_path is None or not self.n_epochs_done:
            return "No epoch was saved before that"
        return f"The weights after epoch {self.n_epochs_done} are in {checkpoint_path}"


def batch_eval(
    gru: GRU4Rec,
    test_data: Any,
    cutoff: Sequence[int] = (20,),
    batch_size: int = 512,
    mode: TieMode = "conservative",
    item_key: str = "ItemId",
    session_key: str = "SessionId",
    time_key: str = "Time",
) -> tuple[dict[int, float], dict[int, float]]:
    """Measure a trained model on a test log, every event but a session's first ranked among all items.

    Args:
        gru: The trained model.
        test_data: Sessions, a path (of a log or a session map), or a pandas, polars or Arrow table; it is not changed.
            What had to be left out is logged as a warning.
        cutoff: List lengths k.
        batch_size: Sessions scored side by side; does not change the result.
        mode: What equal scores do to a rank; see :meth:`gru4rec.evaluate.ranks.RankCounts.ranks`.
        item_key: Column of item ids.
        session_key: Column of session ids.
        time_key: Column of times.

    Returns:
        (recall, mrr), two dicts by k.

    Raises:
        DataError: The log cannot be used, or holds nothing that the model knows.
        ConfigError: A wrong k, mode or batch size, or the model is not trained.
    """
    scorer = gru.scorer()
    sessions = test_data
    if not isinstance(test_data, Sessions):
        columns = Columns(session_key=session_key, item_key=item_key, time_key=time_key)
        sessions = load_sessions(test_data, columns=columns, vocabulary=gru.items)
    elif not sessions.items.same_as(gru.items):
        raise DataError(
            f"the sessions of {sessions.source} are encoded with another vocabulary than the model's. "
            "Make them with Sessions.from_log(log, gru.items)"
        )
    check_cutoffs(cutoff, sessions.items.n_items)
    if sessions.n_unknown_events or sessions.n_single_event_sessions:
        _log.warning(sessions.report())
    return evaluate(scorer, sessions, batch_size=batch_size).metrics(cutoff, mode, seed=gru.settings.draw_seed)
