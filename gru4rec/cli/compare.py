"""``gru4rec compare``: models side by side, on the same events, with intervals, and a report to read."""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from gru4rec.cli.common import add_device_option, add_output_options, add_threads_option, say

HELP = "compare models on one log: tune, train, measure, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("plan", metavar="FILE.toml", help="the plan: logs, models, how to measure (docs/compare.md)")
    parser.add_argument(
        "-o", "--output", metavar="OUT_DIR", required=True,
        help="folder for results.json, report.html, events and finished parts; the same again goes on where it stopped",
    )  # fmt: skip
    parser.add_argument("--events", action="store_true", help="write every target's rank and list to OUT_DIR/events/")
    parser.add_argument("--no-report", action="store_true", help="write no report.html, which needs gru4rec[report]")
    add_device_option(parser)
    add_threads_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from pathlib import Path

    from gru4rec.baselines.files import HYBRID
    from gru4rec.compare.fitting import Machine
    from gru4rec.compare.job import compare
    from gru4rec.compare.output import check_event_names, table_lines, write_events, write_results
    from gru4rec.compare.plan import read_plan
    from gru4rec.errors import ConfigError
    from gru4rec.model.device import resolve_device
    from gru4rec.whole import folder_to_write

    plan = read_plan(args.plan)
    folder = Path(args.output)
    if args.events:
        check_event_names([row.name for row in plan.rows], advice="Give one of them another name")
    device = str(resolve_device(args.device))
    if device != "cpu" and any(row.kind == HYBRID for row in plan.rows):
        raise ConfigError("a hybrid blends on the CPU. Give -d cpu")
    command = shlex.join(["gru4rec", *sys.argv[1:]]) if sys.argv[1:2] == ["compare"] else f"gru4rec compare {args.plan}"
    with folder_to_write(folder, advice="Give -o another folder"):
        if not args.no_report:
            from gru4rec.compare.page import check_page

            check_page(folder / "report.html")
        outcome = compare(
            plan,
            folder,
            machine=Machine(device=device, threads=args.threads or 1),
            command=command,
            tell=lambda message: say(args, message),
        )
    if outcome.n_parts_found:
        say(args, f"{outcome.n_parts_found} finished parts found, {outcome.n_parts_made} made")
    write_results(outcome.results, folder / "results.json")
    say(args, f"wrote {folder / 'results.json'}")
    if args.events:
        for measured in outcome.measured:
            ties, seed = plan.evaluation.ties, plan.evaluation.seed
            say(args, f"wrote {write_events(measured.name, measured.first, ties, seed, folder / 'events')}")
    if not args.no_report:
        from gru4rec.compare.page import write_page

        write_page(outcome.results, folder / "report.html")
        say(args, f"wrote {folder / 'report.html'}")
    if args.json:
        print(json.dumps(outcome.results))
    else:
        if plan.evaluation.candidates is not None:
            print(f"SAMPLED METRICS: {plan.evaluation.candidates} candidates; not comparable with full ranking")
        for line in table_lines(outcome.results):
            print(line)
        for check in outcome.results["checks"]:
            if check["severity"] in ("error", "warning"):
                print(f"{check['severity']}: {check['title']}. {check['detail']}")
    return 0
