"""What was published for six public logs, with which settings, and how far from it counts as the same.

Knows numbers only: ``job`` makes those that are compared with them.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gru4rec.config import HyperParameters, hyper_parameters, read_parameter_file
from gru4rec.errors import ConfigError
from gru4rec.evaluate.ranks import TieMode

SOURCE = (
    "the tables of settings and results in the README of the official PyTorch program "
    "(github.com/hidasib/GRU4Rec_PyTorch_Official, d1fc311); Hidasi and Czapp, RecSys 2023, arXiv:2307.14956"
)
CUTOFFS = (1, 5, 10, 20)
EVAL_TYPE: TieMode = "standard"
"""The official program's default; which tie mode gave its table is not said there."""

SAME_FRAC = 0.01
"""Relative difference up to which two implementations of GRU4Rec count as the same."""
NEAR_FRAC = 0.05
"""Relative difference beyond which one of them does something else."""

Verdict = Literal["PASS", "PASS (within 5%)", "FAIL", "not comparable"]


@dataclass(frozen=True)
class PublishedRow:
    """The published results on one log.

    Attributes:
        metrics: Recall@1, then Recall@K and MRR@K; MRR@1 is Recall@1, so it is left out.
        parameter_file: Name of the file with its tuned settings.
        other_settings: Settings that the row was published with instead of those in the file.
        source: Where the numbers and the other settings were published.
    """

    metrics: Mapping[str, float]
    parameter_file: str
    other_settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = SOURCE

    def settings(self, **changes: Any) -> HyperParameters:
        """Return the settings the row was published with, or these with changes.

        Raises:
            ConfigError: A change that does not fit, or no parameter file.
        """
        values = read_parameter_file(find_parameter_file(self.parameter_file))
        return hyper_parameters({**values, **self.other_settings, **changes}, where=self.parameter_file)


def _row(*values: float, **known: Any) -> PublishedRow:
    names = ("Recall@1", "Recall@5", "MRR@5", "Recall@10", "MRR@10", "Recall@20", "MRR@20")
    return PublishedRow(dict(zip(names, values, strict=True)), **known)


PUBLISHED: dict[str, PublishedRow] = {
    "rsc15": _row(
        0.1845, 0.4906, 0.2954, 0.6218, 0.3130, 0.7283, 0.3205,
        parameter_file="rsc15_xe_shared_100_best.py",
        other_settings={  # the program's parameter file of that name is not what its table of settings says
            "learning_rate": 0.1, "momentum": 0.0, "sample_alpha": 0.75,
            "dropout_p_embed": 0.1, "dropout_p_hidden": 0.0,
        },
    ),
    "yoochoose": _row(
        0.1829, 0.4478, 0.2783, 0.5715, 0.2949, 0.6789, 0.3024, parameter_file="yoochoose_xe_shared_best.py"
    ),
    "rees46": _row(0.1114, 0.3010, 0.1778, 0.4135, 0.1928, 0.5293, 0.2008, parameter_file="rees46_xe_shared_best.py"),
    "coveo": _row(0.0513, 0.1496, 0.0852, 0.2212, 0.0946, 0.3135, 0.1010, parameter_file="coveo_bprmax_shared_best.py"),
    "retailrocket": _row(
        0.1274, 0.3237, 0.1977, 0.4207, 0.2107, 0.5186, 0.2175, parameter_file="retailrocket_bprmax_shared_best.py"
    ),
    "diginetica": _row(
        0.0725, 0.2369, 0.1288, 0.3542, 0.1442, 0.4995, 0.1542, parameter_file="diginetica_bprmax_shared_best.py"
    ),
}  # fmt: skip


def published_row(dataset: str) -> PublishedRow:
    """Return the published results on a log, by the name of its recipe.

    Raises:
        ConfigError: There is none of that name.
    """
    if dataset not in PUBLISHED:
        close = difflib.get_close_matches(dataset.lower(), PUBLISHED, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown data set {dataset!r}. Choose one of {', '.join(PUBLISHED)}{hint}")
    return PUBLISHED[dataset]


def find_parameter_file(name: str) -> Path:
    """Return the path of a parameter file: in the installed package, or in the checkout that holds it.

    Raises:
        ConfigError: It is in neither.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "paramfiles", package.parent / "paramfiles"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"there is no parameter file {name} in {package} or beside it. Install gru4rec again")


@dataclass(frozen=True)
class Comparison:
    """A published number and ours.

    Attributes:
        metric: Its name.
        published: What was published.
        values: Ours, one a seed.

    Example:
        >>> one = Comparison("MRR@20", 0.2, (0.205, 0.209))  # their mean is 3.5% above
        >>> one.verdict, round(one.difference_frac, 6)
        ('PASS (within 5%)', 0.035)
    """

    metric: str
    published: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of one seed's value; None where there is one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference_frac(self) -> float:
        """Difference of the mean from what was published, relative to that; above 0 is better."""
        return self.mean / self.published - 1

    @property
    def verdict(self) -> Verdict:
        """How near it is. Much better is as wrong as much worse: it was not published."""
        distance = round(abs(self.difference_frac), 9)  # 1.01 / 1 - 1 is above 0.01
        if distance <= SAME_FRAC:
            return "PASS"
        return "PASS (within 5%)" if distance <= NEAR_FRAC else "FAIL"


def overall(
    comparisons: Sequence[Comparison], counts: Sequence[Mapping[str, Any]], departures: Sequence[str]
) -> tuple[Verdict, str]:
    """Judge a whole reproduction.

    Args:
        comparisons: Of all metrics.
        counts: Published counts of the prepared log beside those that came out, as in its account.
        departures: In what the run was not the published one.

    Returns:
        The verdict, and the reason in words.
    """
    if departures:
        return "not comparable", f"this is not the published protocol: {'; '.join(departures)}"
    if other := [row for row in counts if row["published"] != row["here"]]:
        named = ", ".join(f"{row['here']:,} {row['part']} {row['count']}, not {row['published']:,}" for row in other)
        return "FAIL", f"the prepared log is not the one that was published: {named}. Is the raw log complete?"
    far = [one for one in comparisons if one.verdict == "FAIL"]
    if far:
        reason = f"{len(far)} of {len(comparisons)} metrics differ by more than 5%: {', '.join(map(_named, far))}"
        if any(one.difference_frac > 0 for one in far):
            reason += ". Better than published is no reproduction either: look for what differs in log or measure"
        return "FAIL", reason
    farthest = max(comparisons, key=lambda one: abs(one.difference_frac))
    reason = f"{len(comparisons)} metrics; the farthest from what was published is {_named(farthest)}"
    return farthest.verdict, reason


def _named(one: Comparison) -> str:
    return f"{one.metric} ({one.difference_frac:+.2%})"
