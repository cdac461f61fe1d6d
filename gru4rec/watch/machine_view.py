"""A sample of the machine as lines of a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from gru4rec.watch.bars import bar, sparkline
from gru4rec.watch.figures import number_of, numbers_of
from gru4rec.watch.line import GB, memory_frac

LABEL_WIDTH = 11
_BAR_WIDTH = 10
_CORE_BAR_WIDTH = 6
_N_CORE_ROWS = 4


def labelled(label: str, *parts: str | tuple[str, str]) -> Text:
    """Return a line: what it is about, then its parts, each with a style or none."""
    return Text.assemble((f"{label:<{LABEL_WIDTH}}", "dim"), *parts)


def machine_lines(sample: Mapping[str, object], width: int, *, with_cores: bool = True) -> list[Text]:
    """Return processor, cores where they are asked for, memory and GPUs, as far as the sample has them.

    Example:
        >>> for line in machine_lines({"core_shares": [1.0, 0.3], "process_share": 1.0, "load": 1.2}, 80):
        ...     print(line)
        processor  this run 1.0 of 2 cores, others 0.3, load 1.2
        cores      0 ━━━━━━ 100%  1 ━━────  30%
    """
    shares = numbers_of(sample, "core_shares")
    cores = _cores(shares, max(1, width - LABEL_WIDTH)) if with_cores else []
    return [*_processor(sample, shares), *cores, *_memory(sample), *_gpus(sample)]


def _processor(sample: Mapping[str, object], shares: Sequence[float]) -> list[Text]:
    if not shares:
        return []
    own, busy = number_of(sample, "process_share"), sum(shares)
    words = [f"{busy:.1f} of {len(shares)} cores busy"]
    if own is not None:
        words = [f"this run {own:.1f} of {len(shares)} cores", f"others {max(0.0, busy - own):.1f}"]
    load, disk = number_of(sample, "load"), number_of(sample, "io_wait_share")
    words += [f"load {load:.1f}"] if load is not None else []
    words += [f"disk wait {disk:.1f}"] if disk is not None else []
    return [labelled("processor", ", ".join(words))]


def _cores(shares: Sequence[float], room: int) -> list[Text]:
    """Return a bar a core, or a character a core where the bars would take too many lines."""
    digits = len(str(len(shares) - 1))
    n_columns = max(1, (room + 2) // (digits + 1 + _CORE_BAR_WIDTH + 7))
    if len(shares) <= _N_CORE_ROWS * n_columns:
        cells = [
            Text.assemble(f"{core:>{digits}} ", (bar(share, _CORE_BAR_WIDTH), _style(share)), f" {share:4.0%}")
            for core, share in enumerate(shares)
        ]
        rows = [Text("  ").join(cells[start : start + n_columns]) for start in range(0, len(cells), n_columns)]
    else:
        starts = range(0, len(shares), room)
        rows = [Text(sparkline(shares[start : start + room], room, low=0.0, high=1.0), "cyan") for start in starts]
    return [labelled("" if place else "cores").append_text(row) for place, row in enumerate(rows)]


def _memory(sample: Mapping[str, object]) -> list[Text]:
    resident, total = number_of(sample, "process_resident_bytes"), number_of(sample, "memory_total_bytes")
    swap, pages = number_of(sample, "swap_used_bytes"), number_of(sample, "swap_pages_per_s")
    faults, full = number_of(sample, "major_faults_per_s"), memory_frac(sample)
    lines = []
    if full is not None and total is not None:
        own = f", this run {resident / GB:.1f} GB" if resident is not None else ""
        shown = bar(full, _BAR_WIDTH), _style(full)
        lines.append(labelled("memory", "machine ", shown, f" {full:4.0%} of {total / GB:.1f} GB{own}"))
    words = [f"{swap / GB:.1f} GB used"] if swap is not None else []
    words += [f"{pages:,.0f} pages/s"] if pages is not None else []
    words += [f"this run's faults from disk {faults:,.0f}/s"] if faults is not None else []
    return [*lines, labelled("swap", ", ".join(words))] if words else lines


def _gpus(sample: Mapping[str, object]) -> list[Text]:
    columns = {
        name: numbers_of(sample, name)
        for name in (
            "gpu_use_shares", "gpu_memory_used_bytes", "gpu_memory_total_bytes", "gpu_temperatures_c", "gpu_powers_w",
        )
    }  # fmt: skip
    lines = []
    for place in range(max(map(len, columns.values()))):
        use, used, total, celsius, watts = (
            values[place] if place < len(values) else None for values in columns.values()
        )
        parts: list[str | tuple[str, str]] = []
        if use is not None:
            parts += [(bar(use, _BAR_WIDTH), _style(use)), f" {use:4.0%}  "]
        words = [f"{used / GB:.1f} of {total / GB:.1f} GB"] if used is not None and total is not None else []
        words += [f"{celsius:.0f} °C"] if celsius is not None else []
        words += [f"{watts:.0f} W"] if watts is not None else []
        lines.append(labelled(f"gpu {place}", *parts, ", ".join(words)))
    return lines


def _style(share: float) -> str:
    return "red" if share >= 0.9 else "green"
