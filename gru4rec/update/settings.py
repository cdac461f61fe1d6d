"""What decides an update, beside the model and the logs. Loads neither torch nor data, as the command line needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from gru4rec.config import HyperParameters, hyper_parameters, setting_values
from gru4rec.errors import ConfigError

ReplayChoice = Literal["sample", "recent"]
REPLAY_CHOICES: tuple[ReplayChoice, ...] = get_args(ReplayChoice)

FIXED = ("layers", "loss", "embedding", "constrained_embedding", "gru_variant")
"""Settings that an update cannot change: they decide the shape and the meaning of the weights."""

N_EPOCHS = 2
"""Passes over the new log and the replayed sessions, unless asked for otherwise."""

LEARNING_RATE_FRAC = 0.7
"""An update's step size as a share of the model's, unless asked for otherwise."""

ANEW_FRAC = 0.5
"""What that is multiplied by where the optimiser's state begins anew, so that its first steps are the largest."""


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How an update treats what is old; docs/update.md has the measurements behind the defaults.

    Attributes:
        replay_share: Old sessions trained on beside each new one, 0 or more; needs a log of old sessions.
        replay: Which ones: ``sample`` draws them by the seed, each alike; ``recent`` takes the last.
        decay: Share of the old support that is left, above 0 up to 1.

    Raises:
        ConfigError: A value is out of range.
    """

    replay_share: float = 1.0
    replay: ReplayChoice = "sample"
    decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.replay_share < float("inf"):
            raise ConfigError(f"replay_share={self.replay_share} is no share. Give 0 or more, such as 0.5")
        if self.replay not in REPLAY_CHOICES:
            raise ConfigError(
                f"unknown choice of replayed sessions {self.replay!r} (--replay-choice). Choose from "
                f"{', '.join(REPLAY_CHOICES)}"
            )
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay={self.decay} is out of range. Give a share above 0, up to 1")

    @property
    def values(self) -> dict[str, Any]:
        """All of them, as JSON can hold them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def training_settings(
    of_model: HyperParameters, given: Mapping[str, Any], *, has_state: bool, where: str
) -> HyperParameters:
    """Return what an update trains with: the model's settings, but fewer passes and a smaller step, and what is given.

    Args:
        of_model: What the model was trained with.
        given: Settings by name that come first.
        has_state: Whether the optimiser's state is carried.
        where: What messages call the source of ``given``.

    Raises:
        ConfigError: An unknown or wrong setting, or one that an update cannot change.
    """
    for name in FIXED:
        if name in given:
            raise ConfigError(
                f"{name} in {where} cannot be changed by an update: it decides what the model's weights are. "
                "Leave it out, or train anew"
            )
    frac = LEARNING_RATE_FRAC * (1 if has_state else ANEW_FRAC)
    usual = {"n_epochs": N_EPOCHS, "learning_rate": of_model.learning_rate * frac}
    return hyper_parameters({**setting_values(of_model), **usual, **given}, where=where)
