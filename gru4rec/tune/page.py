"""A search as one HTML page that loads nothing from anywhere; the figures are Optuna's own, as inline SVG.

Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from gru4rec.errors import ConfigError
from gru4rec.pages.file import generator, write_html
from gru4rec.pages.svg import DrawnFigure
from gru4rec.tune.claims import counted
from gru4rec.tune.space import as_choice

COMMAND = "gru4rec tune"

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{{ generator | safe }}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ content.study }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --line: #dde1e5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e6e9; --paper: #181b1f; --line: #3a4047; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; overflow-x: auto; }
svg { max-width: 100%; height: auto; background: #fff; }  /* Optuna draws in black */
.wide { overflow-x: auto; }
code { overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ content.study }}</h1>
<p>{{ tally }}. Sought: the highest {{ content.metric }} on the validation log.</p>
{% if best %}
<h2>Best settings</h2>
<p>Trial {{ best.place + 1 }}: {{ content.metric }} {{ "%.6f" | format(best.value) }}</p>
<pre><code>{{ best.settings | settings }}</code></pre>
{% endif %}
{% if content.final %}
<h2>Trained with them, at all list lengths</h2>
<table><thead><tr><th>k</th><th>Recall</th><th>MRR</th></tr></thead><tbody>
{% for k, recall in content.final.recall.items() %}
<tr><td>{{ k }}</td><td class="number">{{ "%.6f" | format(recall) }}</td>
<td class="number">{{ "%.6f" | format(content.final.mrr[k]) }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% if content.candidates %}
<h2>Candidates with several seeds</h2>
<table><thead><tr><th>Trial</th><th>Mean</th><th>Values</th></tr></thead><tbody>
{% for row in content.candidates %}
<tr><td>{{ row.place + 1 }}</td>
<td class="number">{{ "failed" if row.mean is none else "%.6f" | format(row.mean) }}</td>
<td>{{ row["values"] | join(", ") }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% for figure in figures %}
<h2>{{ figure.title }}</h2>
<figure>{{ figure.svg | safe }}<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
<h2>All trials</h2>
<div class="wide"><table><thead><tr><th>Trial</th><th>State</th><th>{{ content.metric }}</th><th>Seconds</th>
<th>Settings</th><th>Reason</th></tr></thead><tbody>
{% for row in content.trials %}
<tr><td class="number">{{ "" if row.place is none else row.place + 1 }}</td><td>{{ row.state }}</td>
<td class="number">{{ "" if row.value is none else "%.6f" | format(row.value) }}</td>
<td class="number">{{ "" if row.seconds is none else "%.1f" | format(row.seconds) }}</td>
<td><code>{{ row.settings | settings }}</code></td><td>{{ row.reason or "" }}</td></tr>
{% endfor %}
</tbody></table></div>
</body>
</html>
"""


def check_libraries() -> None:
    """Make sure that a page can be made.

    Raises:
        ConfigError: A library is missing.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{COMMAND} writes a page, which needs {error.name}, and that is missing. Run: pip install "
            "'gru4rec[report]', or give --no-report"
        ) from None


def write_page(content: dict[str, Any], study: optuna.Study, path: Path) -> None:
    """Write the page from what ``study.json`` holds, and the study for its figures.

    Raises:
        DataError: The path cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["settings"] = lambda settings: ",".join(
        f"{name}={as_choice(value)}" for name, value in settings.items()
    )
    rows = content["trials"]
    states = [row["state"] for row in rows]
    text = environment.from_string(_TEMPLATE).render(
        generator=generator(COMMAND),
        content=content,
        tally=", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        best=next((row for row in rows if row["number"] == content["best"]), None),
        figures=_figures(study, content["metric"]),
    )
    write_html(text, path)


def _figures(study: optuna.Study, metric: str) -> list[DrawnFigure]:
    """Draw what can be drawn; a study of few trials has no importances."""
    from optuna.visualization import matplotlib as plots

    found = _counted_only(study)
    drawings: list[tuple[str, Callable[[], Any], str]] = [
        ("History", lambda: plots.plot_optimization_history(found, target_name=metric),
         "Each point is a trial; the line is the best so far."),
        ("Importances", lambda: plots.plot_param_importances(found, target_name=metric),
         "How much of the metric's differences each setting accounts for (PED-ANOVA)."),
        ("Slices", lambda: plots.plot_slice(found, target_name=metric), "The metric against each setting alone."),
        ("Parallel coordinates", lambda: plots.plot_parallel_coordinate(found, target_name=metric),
         "Each line is a trial; those with other settings, because a condition did not hold, are left out."),
    ]  # fmt: skip
    figures = []
    for title, plot, caption in drawings:
        svg = _svg(plot, title.lower().replace(" ", "-"))
        if svg is not None:
            figures.append(DrawnFigure(title, svg, caption))
    return figures


def _counted_only(study: optuna.Study) -> optuna.Study:
    """Return a study of the trials that count, in memory."""
    found = optuna.create_study(direction="maximize")
    found.add_trials([trial for trial in counted(study.get_trials()).values() if trial.state.is_finished()])
    return found


def _svg(plot: Callable[[], Any], name: str) -> str | None:
    """Return what Optuna plots as an SVG element; None where the trials do not suffice for it."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}):
        mpl.use("agg")
        from matplotlib import pyplot

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                axes = np.asarray(plot()).flat[0]
                buffer = io.StringIO()
                axes.figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        except (ValueError, RuntimeError, ZeroDivisionError, IndexError):
            return None
        finally:
            pyplot.close("all")
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg).replace("<svg ", '<svg role="img" ', 1)
