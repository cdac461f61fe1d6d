"""What an exported file is, in every format: what it says of itself, in texts by name, and what a step of it gives.

Dimensions: B sessions, H hidden units of a layer, K list length.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ModelFileError
from gru4rec.whole import write_whole

FORMAT_NAME = "gru4rec-step"
FORMAT_VERSION = 1
ABOUT, ITEM_IDS, VERIFIED = "gru4rec", "gru4rec.item_ids", "gru4rec.verified"
"""Names of the texts: what the graph is, its vocabulary in item-index order, the newest check against its model."""


IdKind = Literal["integer", "text"]


@dataclass(frozen=True)
class About:
    """What a step graph was made from.

    Attributes:
        model_version: The first digits of the SHA-256 of the model file.
        k: Length of its lists.
        n_items: Items N.
        layers: Hidden units H of each layer.
        id_kind: Of the item ids.
        gru4rec_version: Of the package that wrote the file.
    """

    model_version: str
    k: int
    n_items: int
    layers: tuple[int, ...]
    id_kind: IdKind
    gru4rec_version: str

    def texts(self, items: Vocabulary) -> dict[str, str]:
        """Return the texts of a file that was not checked yet."""
        content = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, **asdict(self)}
        return {
            ABOUT: json.dumps(content),
            ITEM_IDS: json.dumps(items.item_ids.to_pylist(), ensure_ascii=False, separators=(",", ":")),
        }


@dataclass(frozen=True)
class Step:
    """What a step of an exported file gave.

    Attributes:
        next_state: Of each layer float32 (B, H).
        top_idx: Int64 (B, K), item indices, best first.
        scores: Float32 (B, K).
        top_ids: Their ids, B lists of K.
    """

    next_state: list[np.ndarray]
    top_idx: np.ndarray
    scores: np.ndarray
    top_ids: list[list[Any]]


class Exported(Protocol):
    """An exported file of any format, ready to take clicks.

    Attributes:
        about: What it says of itself.
        item_ids: In item-index order.
        runtime: What runs it, with its version.
    """

    about: About
    item_ids: list[Any]
    runtime: str

    def step(self, item_idx: np.ndarray, state: Sequence[np.ndarray]) -> Step:
        """Run one step.

        Args:
            item_idx: Int64 (B,), the newest item of each session; below 0: none, the state stays.
            state: Of each layer float32 (B, H).
        """

    def record(self, verified: Mapping[str, Any]) -> None:
        """Write the outcome of a check into the file.

        Raises:
            DataError: It cannot be written.
        """


def write_export(path: str | Path, write: Callable[[Path], object]) -> None:
    """Write an exported file, whole or not at all; a link stays, and what it points to is replaced.

    Raises:
        DataError: It cannot be written.
    """
    write_whole(Path(os.path.realpath(path)), write, advice="Free some space, or give another path")


def not_an_export(path: str | Path) -> ModelFileError:
    """Return the error for a file that ``gru4rec export`` did not write."""
    return ModelFileError(f"{path} is not an export of gru4rec. Give a file that gru4rec export wrote")


def damaged(path: str | Path, reason: object) -> ModelFileError:
    """Return the error for an export that cannot be read as one."""
    first_line = (str(reason) or type(reason).__name__).splitlines()[0].rstrip(".")
    return ModelFileError(f"{path} is damaged, or no export: {first_line}. Copy or export it again")


def read_about(texts: Mapping[str, str], path: str | Path) -> tuple[About, list[Any]]:
    """Take what the graph is and its item ids out of a file's texts.

    Raises:
        ModelFileError: They are of another program, of a newer version, or damaged.
    """
    if ABOUT not in texts:
        raise not_an_export(path)
    try:
        content = json.loads(texts[ABOUT])
        if content.pop("format") != FORMAT_NAME:
            raise not_an_export(path)
        if content.pop("format_version") != FORMAT_VERSION:
            raise ModelFileError(f"{path} is of a newer format. Upgrade: pip install -U gru4rec")
        about = About(**{**content, "layers": tuple(content["layers"])})
        item_ids: list[Any] = json.loads(texts[ITEM_IDS])
    except KeyError as error:
        raise damaged(path, f"it has no {error.args[0]}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(path, error) from None
    return about, item_ids
