"""A run and its machine on one screen: lines of text that fit the width, and the height where there is one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.text import Text

from gru4rec.watch.bars import bar, sparkline
from gru4rec.watch.figures import number_of
from gru4rec.watch.hints import hints
from gru4rec.watch.machine_view import LABEL_WIDTH, labelled, machine_lines
from gru4rec.watch.run_folder import WatchedRun, validation_of

_N_EPOCH_ROWS = 20
_N_TABLE_LINES = 5
"""Of a table with the newest and the best epoch, and the empty lines around it."""


def view(run: WatchedRun, samples: Sequence[Mapping[str, object]], *, width: int, height: int | None = None) -> Text:
    """Show a run.

    Args:
        run: The run, as last read.
        samples: The machine's last samples, the newest last; hints come from all, figures from the newest.
        width: Characters a line, at most.
        height: Lines, at most; older epochs are left out first, then the bars of cores. None: any, and 20 epochs.

    Returns:
        The lines, none longer than the width.
    """
    head = [*_head(run, width), *_progress(run, width), *_curves(run, width)]
    hint_lines = [] if run.status() == "finished" else _hint_lines(run, samples, width)
    machine = _machine(run, samples, width)
    if height is not None and len(head) + len(machine) + len(hint_lines) + _N_TABLE_LINES > height:
        machine = _machine(run, samples, width, with_cores=False)
    tail = [*machine, *hint_lines]
    room = _N_EPOCH_ROWS if height is None else max(1, height - len(head) - len(tail) - 3)  # header, two empty lines
    table = _epochs(run, min(room, _N_EPOCH_ROWS))
    lines = [*head, *([Text(), *table] if table else []), *([Text()] if tail else []), *tail]
    if height is not None and len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], Text(f"{hidden} more lines: enlarge the terminal, or see --once", style="dim")]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def _head(run: WatchedRun, width: int) -> list[Text]:
    path, status = str(run.path), run.status()
    room = width - LABEL_WIDTH
    path = path if len(path) <= room else "…" + path[-(room - 1) :]
    styles = {"running": "green", "finished": "bold green", "interrupted": "yellow"}
    style = styles.get(status.partition(",")[0], "bold red")
    return [labelled("run", (path, "bold")), labelled("status", (status, style))]


def _progress(run: WatchedRun, width: int) -> list[Text]:
    n_epochs = number_of(run.config, "n_epochs")
    step = number_of(run.newest or {}, "step")
    of_all = f" of {n_epochs:.0f}" if n_epochs else ""
    epoch = len(run.epochs) + 1 if not run.is_over and (not n_epochs or len(run.epochs) < n_epochs) else len(run.epochs)
    words = f"{epoch}{of_all}" + (" done" if run.is_over else "")
    trained = number_of(run.newest or {}, "time")
    words += f", step {step:,.0f}" if step is not None else ", no line yet"
    words += f", {spoken(trained)} of training" if trained is not None else ""
    if run.n_unreadable:
        words += f", {run.n_unreadable} unreadable lines left out"
    lines = [labelled("epoch", words)]
    if n_epochs:
        share, left = min(1.0, run.n_epochs_done() / n_epochs), None if run.is_over else run.seconds_left()
        shown = f" {share:6.1%}" + (f"  {spoken(left)} left" if left is not None else "")
        lines.append(labelled("done", (bar(share, max(5, min(60, width - LABEL_WIDTH - 24))), "cyan"), shown))
    return lines


def _curves(run: WatchedRun, width: int) -> list[Text]:
    lines = list(run.steps) or run.epochs
    if not lines:
        return []
    newest = lines[-1]
    room = width - LABEL_WIDTH - 14
    shown = []
    for label, name, form in (("loss", "loss", ".6f"), ("events/s", "events_per_second", ",.0f")):
        value = number_of(newest, name)
        number = "not finite" if value is None else format(value, form)
        values = [value for line in lines if (value := number_of(line, name)) is not None]
        shown.append(labelled(label, f"{number:<14}", (sparkline(values, room), "cyan")))
    gradient, weights = number_of(newest, "gradient_norm"), number_of(newest, "weight_norm")
    norms = {"gradient": gradient, "weights": weights}
    words = ", ".join(f"{name} {value:.4g}" for name, value in norms.items() if value is not None)
    return [*shown, labelled("norms", words)] if words else shown


def _epochs(run: WatchedRun, n_rows: int) -> list[Text]:
    """Return a header and the newest epochs, and the best one where it is older."""
    if not run.epochs:
        return []
    best, names, n_epochs = run.best_epoch(), run.metrics(), len(run.epochs)
    places = list(range(max(0, n_epochs - n_rows), n_epochs))
    if best is not None and best < places[0]:
        places = [best, *places[1:]] if len(places) > 1 else places
    header = f"{'epoch':>5}  {'loss':>10}  {'events/s':>10}" + "".join(f"  {name:>10}" for name in names)
    lines = [Text(header, style="dim")]
    for place in places:
        line = run.epochs[place]
        validation = validation_of(line)
        row = f"{_shown(line, 'epoch', '.0f'):>5}  {_shown(line, 'loss', ',.6f'):>10}"
        speed = run.epoch_speed(place)
        row += f"  {'-' if speed is None else format(speed, ',.0f'):>10}"
        row += "".join(f"  {_shown(validation, name, '.6f'):>10}" for name in names)
        is_best = place == best
        lines.append(
            Text(row + (f"  best {run.deciding_metric()}" if is_best else ""), style="bold" if is_best else "")
        )
    return lines


def _shown(values: Mapping[str, object], name: str, form: str) -> str:
    value = number_of(values, name)
    return "-" if value is None else format(value, form)


def _machine(
    run: WatchedRun, samples: Sequence[Mapping[str, object]], width: int, *, with_cores: bool = True
) -> list[Text]:
    lines = machine_lines(samples[-1] if samples else {}, width, with_cores=with_cores)
    return [labelled("machine", "as the run last recorded it"), *lines] if lines and not run.is_alive else lines


def _hint_lines(run: WatchedRun, samples: Sequence[Mapping[str, object]], width: int) -> list[Text]:
    threads = number_of(run.config, "threads")
    lines: list[Text] = []
    for hint in hints(samples, n_threads=int(threads or 1)):
        parts = textwrap.wrap(hint, max(20, width - 2))
        lines += [Text(("! " if place == 0 else "  ") + part, style="yellow") for place, part in enumerate(parts)]
    return lines


def spoken(seconds: float) -> str:
    """Say a duration.

    Example:
        >>> spoken(8.25), spoken(75), spoken(7_260), spoken(200_000)
        ('8.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
