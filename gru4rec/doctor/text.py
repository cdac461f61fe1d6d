"""The report as readable text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from gru4rec.doctor.cost import spoken_cost
from gru4rec.doctor.examine import Report
from gru4rec.doctor.findings import SEVERITIES, count, percent
from gru4rec.doctor.units import spoken

WIDTH = 100


def as_text(report: Report) -> str:
    """Return the findings, the gravest first, and the numbers they rest on."""
    blocks = [_indented(f"{f.severity.upper():<8} {f.name}: {f.message}.") for f in report.findings]
    numbers = [_indented(f"{name + ':':<13} {line}", 14) for name, line in number_lines(report)]
    return "\n".join([verdict(report), "", *blocks, *[""][: len(blocks)], *numbers])


def verdict(report: Report) -> str:
    """Say in one line how the log is."""
    counts = report.counts
    logs = report.log if report.test is None else f"{report.log} with {report.test}"
    found = ", ".join(count(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    if report.is_clean:
        return f"{logs}: clean, no error and no warning" + (f" ({found})" if found else "")
    return f"{logs}: {found}"


def _indented(text: str, width: int = 9) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * width, break_long_words=False, break_on_hyphens=False)


def number_lines(report: Report) -> Iterator[tuple[str, str]]:
    """Yield (subject, sentence) for the numbers of every check."""
    n = report.numbers
    shape = n["shape"]
    yield "events", _events(n)
    yield "times", f"{n['clock']['first']} to {n['clock']['last']} ({_unit(n['clock']['unit'])})"
    if shape["events_per_day"]:
        yield "per day", f"{_spread(shape['events_per_day'])}; {count(shape['events_per_day']['n_days'], 'day')}"
    yield "sessions", f"{_spread(shape['session_length'])} events; {shape['n_sessions_of_one_event']:,} of one event"
    yield "items", (
        f"{_spread(shape['item_support'])} events; {shape['n_items_below_support_5']:,} below 5, with "
        f"{percent(shape['events_below_support_5_frac'])} of events"
    )  # fmt: skip
    yield "repeats", f"{percent(shape['repeats_frac'])} of events to predict repeat the item just before"
    yield "order", _order(n["sequence"])
    if n["gaps"]["gap_s"]:
        yield "gaps", _gaps(n["gaps"])
    if n["drift"]:
        yield "drift", _drift(n["drift"])
    if "leaks" in n:
        yield "test", _leaks(n["leaks"])
    yield from spoken_cost(n["cost"])


def _events(n: dict[str, dict[str, Any]]) -> str:
    shape, n_rows, left_out = n["shape"], n["rows"]["n_rows"], n["clock"]["n_left_out"]
    others = [unit for unit in n["clock"]["n_rows_by_unit"] if unit != n["clock"]["unit"]]
    reasons = [
        *(["copies of other rows"] if n["rows"]["n_copies_left_out"] else []),
        *([f"rows in {' and '.join(others)}"] if left_out["another_unit"] else []),
        *(["far-away times"] if left_out["far_away"] else []),
    ]
    rest = "test, memory and time" if "leaks" in n else "memory and time"
    whole = f"{shape['n_events']:,}"
    if reasons:
        whole += f" of {n_rows:,} ({' and '.join(reasons)} are left out of all below but {rest})"
    return f"{whole} in {count(shape['n_sessions'], 'session')}, {count(shape['n_items'], 'item')}"


def _unit(unit: str) -> str:
    return "a mere order" if unit == "order only" else f"by their size {unit} since 1970, UTC"


def _spread(values: dict[str, float]) -> str:
    return f"median {values['median']:,.0f}, 99 % up to {values['p99']:,.0f}, max {values['max']:,.0f}"


def _order(n: dict[str, Any]) -> str:
    used = (
        "" if n["n_sessions_used"] == n["n_sessions"] else f", from the last {count(n['n_sessions_used'], 'session')}"
    )
    return (
        f"Recall@{n['k']} of Markov counts {n['recall_markov']:.3f}, on shuffled sessions "
        f"{n['recall_shuffled']:.3f}, of popularity {n['recall_popularity']:.3f} "
        f"({count(n['n_targets'], 'event')}{used})"
    )


def _gaps(n: dict[str, Any]) -> str:
    gap, cut = n["gap_s"], n["suggested_cut"]
    advice = "no cut needed" if cut is None else f"suggested session cut {cut}"
    return f"median {spoken(gap['median'])}, 99 % up to {spoken(gap['p99'])}, longest {spoken(gap['max'])}; {advice}"


def _drift(n: dict[str, Any]) -> str:
    return (
        f"popularity {n['popularity_drift']:.2f} (0 none, 1 all new); {percent(n['cold_last_tenth_frac'])} of events "
        f"in the last tenth on items not seen before, {percent(n['cold_by_chance_frac'])} in a random tenth"
    )


def _leaks(n: dict[str, Any]) -> str:
    return (
        f"{count(n['n_test_events'], 'event')} in {count(n['n_test_sessions'], 'session')}, "
        f"{n['n_shared_session_ids']:,} with ids of training, {n['n_copied_sessions']:,} copied; "
        f"{percent(n['cold_test_events_frac'])} of events on new items"
    )
