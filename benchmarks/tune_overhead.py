"""What a search costs beside its trainings: 20 short trials in process, against one process of run.py a trial.

    python benchmarks/tune_overhead.py [--trials 20]

Prints seconds a trial for both, their ratio, the same with the training time taken out, and the worker's memory.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gru4rec.config import hyper_parameters, setting_values
from gru4rec.data.simulate import ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import write_logs
from gru4rec.tune.checks import parameter_file_text

ROOT = Path(__file__).parent.parent
SPACE = """{"name": "layers", "dtype": "int", "values": [16, 32], "step": 8}
{"name": "learning_rate", "dtype": "float", "values": [0.05, 0.3], "step": 0.05}
"""
FIXED = "n_epochs=1,n_sample=64,batch_size=32"


def run(script: str, *words: object) -> tuple[float, str]:
    """Return wall seconds and standard output."""
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return time.perf_counter() - started, done.stdout


def search(folder: Path, n_trials: int) -> tuple[float, list[dict[str, Any]]]:
    logs = folder / "train_tr.tsv", folder / "train_valid.tsv"
    flags = ["-nt", n_trials, "-d", "cpu", "--threads", 1, "--sampler", "random", "--no-prune", "--no-report", "-q"]
    seconds, _ = run("paropt.py", *logs, "-opf", folder / "space.json", "-fp", FIXED, "--run-dir", folder / "r", *flags)
    trials: list[dict[str, Any]] = json.loads((folder / "r" / "study.json").read_text())["trials"]
    return seconds, trials


def one_process_a_trial(folder: Path, trials: list[dict[str, Any]]) -> tuple[float, float]:
    """Return wall seconds of all, and those that they trained."""
    total_s, training_s = 0.0, 0.0
    for trial in trials:
        settings = setting_values(hyper_parameters(trial["settings"]))
        parameters = folder / "parameters.py"
        parameters.write_text(parameter_file_text({name: settings[name] for name in trial["settings"]}))
        logs = [folder / "train_tr.tsv", "-t", folder / "train_valid.tsv"]
        words = [*logs, "-pf", parameters, "-d", "cpu", "--threads", 1, "-q"]
        seconds, output = run("run.py", *words)
        total_s += seconds
        training_s += float(re.findall(r"Total training time: ([\d.]+)s", output)[0])
    return total_s, training_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=20)
    n_trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(simulate_shop(ShopSettings(seed=5, n_items=500, n_categories=20, n_sessions=4_000)), folder)
        (folder / "space.json").write_text(SPACE)
        ours_s, trials = search(folder, n_trials)
        theirs_s, training_s = one_process_a_trial(folder, trials)
    in_trials_s = sum(trial["seconds"] for trial in trials)
    first, last = (trials[place]["memory_bytes"] / 1e6 for place in (0, -1))
    in_process_s, processes_s = ours_s - in_trials_s, theirs_s - training_s
    print(f"{n_trials} trials; the search's last training is taken for overhead")
    print(f"in process: {ours_s:.1f} s, of which {in_trials_s:.1f} s in trials")
    print(f"run.py for each: {theirs_s:.1f} s, of which {training_s:.1f} s in training")
    print(f"time, run.py for each / in process: {theirs_s / ours_s:.1f}")
    print(f"overhead, run.py for each / in process: {processes_s / in_process_s:.1f}")
    print(f"memory of the worker: {first:.0f} MB after trial 1, {last:.0f} MB after trial {n_trials}")


if __name__ == "__main__":
    main()
