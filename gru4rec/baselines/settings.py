"""The settings of the baselines: each declared once, with its range and one line of documentation.

Knows nothing of data or scorers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weighting = Literal["same", "linear", "position", "inverse", "quadratic", "exponential"]

_ALL = 2**31 - 1


class BaselineSettings(BaseModel):
    """What all baselines' settings have in common: they are frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoSettings(BaselineSettings):
    """For baselines that have nothing to set."""


class RandomSettings(BaselineSettings):
    """Settings of the random order."""

    seed: int = Field(0, ge=0, lt=2**63, description="Decides the order of the items of every session.")


class SessionPopularitySettings(BaselineSettings):
    """Settings of the popularity within the session."""

    n_clicks: int = Field(50, ge=1, le=1000, description="Newest clicks of a session that are counted.")
    exclude_last: bool = Field(False, description="Never recommend the item that was clicked last.")


class MarkovSettings(BaselineSettings):
    """Settings of sequential rules."""

    steps: int = Field(1, ge=1, le=1000, description="How far after an item others count, by 1 / distance.")
    n_neighbours: int = Field(_ALL, ge=1, le=_ALL, description="Items that are kept for each item.")


class AssociationSettings(BaselineSettings):
    """Settings of association rules."""

    n_neighbours: int = Field(_ALL, ge=1, le=_ALL, description="Items that are kept for each item.")


class ItemKNNSettings(BaselineSettings):
    """Settings of item kNN."""

    n_neighbours: int = Field(100, ge=1, le=_ALL, description="Items that are kept for each item.")
    regularisation: float = Field(
        20.0, ge=0, description="Sessions added to each item's, so that rare items are not near by chance."
    )


class SessionKNNSettings(BaselineSettings):
    """Settings of a session kNN; the defaults are those of V-SkNN."""

    k: int = Field(100, ge=1, le=_ALL, description="Nearest sessions that say something.")
    m: int = Field(1000, ge=1, le=10**7, description="Newest sessions that neighbours are chosen from.")
    weighting: Weighting = Field("position", description="Weight of a session's clicks in the similarity.")
    score_weighting: Weighting = Field(
        "linear", description="Weight of a neighbour's say, by how long ago the newest shared item was clicked."
    )
    decay: float = Field(2.0, gt=0, description="Clicks over which an exponential weighting falls to 1/e.")
    cosine: bool = Field(False, description="Divide a neighbour's similarity by the root of its distinct items.")
    recency: float = Field(
        0.0, ge=0, description="Age over which a neighbour's similarity falls to 1/e, as a share of the log; 0: none."
    )
    gap_decay: float = Field(
        0.0, ge=0, description="Events over which a neighbour's items around the shared one fall to 1/e; 0: none."
    )
    idf_weight: float = Field(0.0, ge=0, description="Rare items: a score times 1 + this x -log(share of clicks).")
    exclude_last: bool = Field(False, description="Put the item that was clicked last behind all others.")
    n_clicks: int = Field(20, ge=1, le=1000, description="Newest clicks of a session that are looked at.")


NonNegative = Annotated[float, Field(ge=0)]


class HybridSettings(BaselineSettings):
    """Settings of a blend of a model and a session kNN; ``hybrid.choose_settings`` finds them on a validation log."""

    neighbour_share: float = Field(0.3, ge=0, le=1, description="Share of the neighbours; the rest is the model's.")
    temperature: float = Field(1.0, gt=0, description="The model's scores are divided by it before the softmax.")
    exponent: float = Field(
        1.0, gt=0, le=1, description="Both views are raised to it first: 1 is their mean, near 0 their geometric mean."
    )
    repeat_factors: tuple[NonNegative, ...] = Field(
        (1.0,),
        min_length=1,
        max_length=20,
        description="What the score of an item is multiplied by that was clicked last, one before that, ...; the last "
        "factor holds for all older clicks.",
    )
    n_clicks: int = Field(20, ge=1, le=1000, description="Newest clicks of a session that the factors apply to.")
