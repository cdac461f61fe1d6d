"""Six public logs, prepared as the GRU4Rec papers' programs prepare them (docs/prepare.md has a page for each).

A recipe is data: which files, which columns, which steps. ``job`` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gru4rec.errors import ConfigError, DataError
from gru4rec.prepare.account import Published
from gru4rec.prepare.job import Preparation
from gru4rec.prepare.layout import Condition, RawLayout
from gru4rec.prepare.split import SplitRule

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Recipe:
    """How a public log becomes training and test logs.

    Attributes:
        files: Its raw files, as its owner calls them; each may be packed (.gz, .zst).
        preparation: What to do.
        published: Counts that were published for the result.
        other_names: Other names that columns have in some copies of the log, by column.
    """

    files: tuple[str, ...]
    preparation: Preparation
    published: tuple[Published, ...] = ()
    other_names: tuple[tuple[str, str], ...] = ()

    def find_files(self, folder: Path) -> list[Path]:
        """Return the paths of the raw files in a folder.

        Raises:
            DataError: The folder is missing, or lacks one of them.
        """
        if folder.is_file() and any(folder.name.startswith(name) for name in self.files):
            folder = folder.parent
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}. Give the folder that holds {' and '.join(self.files)}")
        return [self._find(folder, name) for name in self.files]

    def _find(self, folder: Path, name: str) -> Path:
        for suffix in ("", ".gz", ".zst"):
            if (path := folder / f"{name}{suffix}").is_file():
                return path
        raise DataError(f"there is no {name} in {folder}. Get it from its owner (docs/prepare.md says where)")

    def fitted(self, columns: list[str]) -> Preparation:
        """Return the preparation with columns called as they are in a copy of the log."""
        layout = self.preparation.layout
        for usual, other in self.other_names:
            if usual not in columns and other in columns:
                layout = _renamed(layout, usual, other)
        return replace(self.preparation, layout=layout)


def _renamed(layout: RawLayout, usual: str, other: str) -> RawLayout:
    keys = ("session_key", "user_key", "item_key", "time_key", "date_key")
    changed: dict[str, Any] = {key: other for key in keys if getattr(layout, key) == usual}
    return replace(layout, **changed)


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}. Choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def _last_days(days: float, *, end_s: float | None = None) -> SplitRule:
    return SplitRule(period_s=days * _DAY_S, end_s=end_s, cold_items="keep")


_YOOCHOOSE = RawLayout(
    session_key="SessionId",
    item_key="ItemId",
    time_key="Time",
    header=("SessionId", "Time", "ItemId", "Category"),
    separator=",",
)

RECIPES: dict[str, Recipe] = {
    # YOOCHOOSE, RecSys Challenge 2015: clicks of both files
    "yoochoose": Recipe(
        ("yoochoose-clicks.dat", "yoochoose-test.dat"),
        Preparation(layout=_YOOCHOOSE, gap_s=None, split=_last_days(1)),
    ),
    # RSC15, RecSys Challenge 2015: the older preparation, training clicks only
    "rsc15": Recipe(
        ("yoochoose-clicks.dat",),
        Preparation(
            layout=_YOOCHOOSE,
            gap_s=None,
            keep_repeats=True,
            one_pass=True,
            split=SplitRule(period_s=_DAY_S, by="end", cold_items="drop"),
        ),
        published=(
            Published("train_full", 31_637_239, 7_966_257, 37_483),
            Published("test", 71_222, 15_324),
        ),
    ),
    # REES46, eCommerce behaviour data from a multi-category store, October and November 2019
    "rees46": Recipe(
        ("2019-Oct.csv", "2019-Nov.csv"),
        Preparation(
            layout=RawLayout(
                user_key="user_id",
                item_key="product_id",
                time_key="event_time",
                separator=",",
                keep=Condition("event_type", ("view",)),
            ),
            split=_last_days(1, end_s=1_575_158_400),
        ),
    ),
    # Coveo, shopper intent prediction from clickstream data
    "coveo": Recipe(
        ("release_10_23_2020.csv",),
        Preparation(
            layout=RawLayout(
                user_key="session_id_hash",
                item_key="product_skus_hash",
                time_key="server_timestamp_epoch_ms",
                separator=",",
                time_unit="ms",
                keep=Condition("product_action", ()),
                keep_after_cut=Condition("product_action", ("detail",)),
            ),
            split=_last_days(1),
        ),
    ),
    # RetailRocket, e-commerce events
    "retailrocket": Recipe(
        ("events.csv",),
        Preparation(
            layout=RawLayout(
                user_key="visitorid",
                item_key="itemid",
                time_key="timestamp",
                separator=",",
                time_unit="ms",
                keep_after_cut=Condition("event", ("view",)),
            ),
            split=_last_days(7, end_s=1_442_545_200),
        ),
    ),
    # DIGINETICA, CIKM Cup 2016, track 2: item views
    "diginetica": Recipe(
        ("train-item-views.csv",),
        Preparation(
            layout=RawLayout(
                session_key="sessionId",
                item_key="itemId",
                time_key="timeframe",
                date_key="eventdate",
                separator=";",
                time_unit="ms",
            ),
            gap_s=None,
            split=_last_days(7),
        ),
        other_names=(("sessionId", "session_id"), ("itemId", "item_id")),
    ),
}
