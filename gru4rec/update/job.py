"""An update, all of it: the grown vocabulary, the sessions to train on, the state to go on from, a few passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from gru4rec.api import GRU4Rec
from gru4rec.bundle import STATE_EVENTS, Bundle
from gru4rec.config import Engine, HyperParameters, Precision, setting_values
from gru4rec.data.files import Columns
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError
from gru4rec.train.loop import EpochReport
from gru4rec.update.growth import grown_state, grown_vocabulary, grown_weights, state_events, support_after
from gru4rec.update.replay import choose_replay, mixed
from gru4rec.update.settings import ANEW_FRAC, LEARNING_RATE_FRAC, UpdateSettings, training_settings
from gru4rec.update.state import CarriedState

_log = logging.getLogger("gru4rec")

_HOW_TO_KEEP = "gru4rec train --keep-state, or fit(keep_state=True), keeps it"


@dataclass(frozen=True)
class Updated:
    """An updated model, and what was done.

    Attributes:
        gru: The model; the one that was given is as it was.
        n_items_before: Items that the model knew.
        n_new_items: Items that it knows beside them.
        n_alone: New items that stand beside no known one, so that their rows are the mean of all.
        n_sessions: Sessions of the new log that were trained on.
        n_replayed: Sessions of the old log that were.
        state: The optimiser's: ``carried`` with the model, or begun ``anew``.
        seconds: Wall time of all of it, without reading logs.
    """

    gru: GRU4Rec
    n_items_before: int
    n_new_items: int
    n_alone: int
    n_sessions: int
    n_replayed: int
    state: Literal["carried", "anew"]
    seconds: float

    @property
    def account(self) -> dict[str, Any]:
        """All but the model, as JSON can hold it."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "gru"}


def update(
    gru: GRU4Rec,
    data: Any,
    *,
    replay: Any = None,
    settings: UpdateSettings | None = None,
    item_key: str = "ItemId",
    session_key: str = "SessionId",
    time_key: str = "Time",
    sample_cache_max_size: int = 10_000_000,
    on_epoch: Callable[[EpochReport], None] = _log.info,
    on_step: Callable[[int], None] | None = None,
    threads: int | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    tell: Callable[[str], None] = _log.info,
    **training: Any,
) -> Updated:
    """Train a model on a new log, with its new items, and with some sessions of an old log.

    Args:
        gru: The model, which stays as it is.
        data: The new log: Sessions in a vocabulary of their own, a path, or a table; see :meth:`GRU4Rec.fit`.
        replay: The old log, in the same forms. None: nothing is replayed.
        settings: How what is old is treated; None: as usual.
        item_key: Column of item ids, in both logs.
        session_key: Column of session ids.
        time_key: Column of times.
        sample_cache_max_size: See :meth:`GRU4Rec.fit`; so are the others not named here.
        on_epoch: Called with each epoch's report.
        on_step: Called every now and then with the number of events trained on since.
        threads: CPU threads of this call.
        engine: Which step trains.
        precision: Of the matrix products.
        tell: Called with what the user should know.
        **training: Hyper-parameters of this update, such as ``learning_rate`` or ``n_epochs``. The model's own, which
            the next update starts from, stay as they are.

    Returns:
        The updated model and an account. Its training state is kept, so that the next update goes on from it.

    Raises:
        ConfigError: The model is not trained, a setting does not fit, or the model's loss is one that was put on this
            object.
        DataError: A log cannot be used, or nothing in it is known.
        DivergedError: The model diverged in training, or does now.
    """
    settings = settings or UpdateSettings()
    columns = Columns(session_key=session_key, item_key=item_key, time_key=time_key)
    has_state = gru.training_state is not None
    trained_with = training_settings(gru.settings, training, has_state=has_state, where="the update's settings")
    new = data if isinstance(data, Sessions) else load_sessions(data, columns=columns)
    old = replay if isinstance(replay, Sessions) or replay is None else load_sessions(replay, columns=columns)
    started = time.perf_counter()
    gru.scorer()  # refuses a model that is not trained, or has diverged
    before = gru.bundle()
    items = grown_vocabulary(before.items, new)
    new = new.with_vocabulary(items)
    weights, n_alone = grown_weights(before.weights, new, before.support)
    log, n_replayed = _log_to_train_on(new, old, settings, seed=trained_with.draw_seed)
    log = replace(log, item_support=support_after(before.support, new, decay=settings.decay))
    learner = _learner(gru, trained_with)
    n_new = items.n_items - before.items.n_items
    if before.training_state is None:
        usual = f", {LEARNING_RATE_FRAC * ANEW_FRAC:g} of the model's instead of {LEARNING_RATE_FRAC:g}"
        tell(
            f"note: the optimiser's state was not saved with the model ({_HOW_TO_KEEP}): it begins anew, with a "
            f"learning rate of {trained_with.learning_rate:g}{'' if 'learning_rate' in training else usual}"
        )
    state = grown_state(before.training_state or {}, n_new, before.support)
    learner.fit(
        log,
        sample_cache_max_size=sample_cache_max_size,
        initial_weights=weights,
        on_epoch=on_epoch,
        on_step=on_step,
        threads=threads,
        engine=engine,
        precision=precision,
        recorder=CarriedState(state),
        keep_state=True,
    )
    learner.training_state = {**(learner.training_state or {}), **_events_behind(before, new, settings.decay)}
    return Updated(
        _with_settings(learner, before),
        n_items_before=before.items.n_items,
        n_new_items=n_new,
        n_alone=n_alone,
        n_sessions=new.n_sessions - new.n_single_event_sessions,
        n_replayed=n_replayed,
        state="anew" if before.training_state is None else "carried",
        seconds=time.perf_counter() - started,
    )


def _log_to_train_on(
    new: Sessions, old: Sessions | None, settings: UpdateSettings, *, seed: int
) -> tuple[Sessions, int]:
    """Return the new sessions and those of the old log that are replayed, and how many these are."""
    n_replayed = round(settings.replay_share * (new.n_sessions - new.n_single_event_sessions))
    if old is None or not n_replayed:
        return new, 0
    old = old.with_vocabulary(new.items)
    chosen = choose_replay(old, n_replayed, how=settings.replay, seed=seed)
    return mixed(new, old, chosen), len(chosen)


def _events_behind(before: Bundle, new: Sessions, decay: float) -> dict[str, np.ndarray]:
    """Return the events behind the accumulators, as training state has them; nothing where the support says so."""
    state = before.training_state
    if state is not None and STATE_EVENTS not in state and decay == 1:
        return {}
    n_before = 0.0 if state is None else state_events(state, before.support)
    return {STATE_EVENTS: np.array([n_before + new.n_events])}


def _learner(gru: GRU4Rec, settings: HyperParameters) -> GRU4Rec:
    """Return an untrained model of the same class, which trains with the same loss."""
    learner = type(gru)(device=gru.device, dtype=gru.dtype, **setting_values(settings))
    if not learner.has_loss_of(gru):
        raise ConfigError(
            "the model's loss was put on the object itself, and an update would train a new object without it. Make "
            "it a method of a subclass of GRU4Rec"
        )
    return learner


def _with_settings(learner: GRU4Rec, before: Bundle) -> GRU4Rec:
    """Return the updated model with the settings it was first trained with."""
    after = replace(
        learner.bundle(), settings=before.settings, n_epochs_done=before.n_epochs_done + learner.n_epochs_done
    )
    return type(learner).from_bundle(after, learner.device)
