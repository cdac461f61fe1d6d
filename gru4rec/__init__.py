"""GRU4Rec: session-based recommendation that is exact, fast and free to use.

``import gru4rec`` is quick: torch is loaded when a name that needs it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "GRU4Rec": "gru4rec.api",
    "Recommender": "gru4rec.serve.recommender",
    "Recommendations": "gru4rec.serve.recommender",
    "batch_eval": "gru4rec.api",
    "load_events": "gru4rec.data.events",
    "Sessions": "gru4rec.data.sessions",
    "Vocabulary": "gru4rec.data.vocabulary",
    "HyperParameters": "gru4rec.config",
}
__all__ = [
    "GRU4Rec",
    "HyperParameters",
    "Recommendations",
    "Recommender",
    "Sessions",
    "Vocabulary",
    "__version__",
    "batch_eval",
    "load_events",
]

if TYPE_CHECKING:
    from gru4rec.api import GRU4Rec, batch_eval
    from gru4rec.config import HyperParameters
    from gru4rec.data.events import load_events
    from gru4rec.data.sessions import Sessions
    from gru4rec.data.vocabulary import Vocabulary
    from gru4rec.serve.recommender import Recommendations, Recommender


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gru4rec' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
