"""docs/cluster.md: its commands run, on two hosts too; scripts, units and manifests are well formed, flags are real."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import GOLDEN, ROOT
from distributed.hosts import Host, two_hosts
from pyarrow import csv, parquet
from tune.postgresql import PASSWORD, Server, running_server
from tune.programs import LONG, Programs
from tune.small_shop import by_place, call, study_of, words, write_shop

from gru4rec import GRU4Rec

PAGE = (ROOT / "docs" / "cluster.md").read_text()
STEADY = ["-nt", "4", "--sampler", "random", "--no-prune", "-fp", LONG, "-d", "cpu", "--threads", "1"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def manifests() -> list[dict[str, Any]]:
    return [document for block in blocks("yaml") for document in yaml.safe_load_all(block)]


def pods() -> dict[str, dict[str, Any]]:
    """What each Job and CronJob runs, by its name."""
    found = {}
    for each in manifests():
        if each["kind"] in ("Job", "CronJob"):
            job = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
            found[each["metadata"]["name"]] = job["template"]["spec"]
    return found


def shell_of(container: dict[str, Any]) -> str:
    """The script of a container that runs one in bash, else its command line."""
    command = container["command"]
    return str(container["args"][0]) if command[0] == "bash" else shlex.join(command)


# --- the commands, run ---


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Starts programs that do not outlive the test."""
    found = Programs()
    yield found
    found.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page calls /srv/shop: logs, space and the page's own tune.sh."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    for name, known in (("train", "train_tr"), ("valid", "train_valid")):
        table = csv.read_csv(folder / f"{name}.tsv", parse_options=csv.ParseOptions(delimiter="\t"))
        parquet.write_table(table, folder / f"{known}.parquet")
    script = folder / "tune.sh"
    script.write_text(blocks("bash")[0])
    script.chmod(0o755)
    return folder


class Machines:
    """Two hosts, one of them with the database, on which the page's commands are given."""

    def __init__(self, shop: Path, server: Server, programs: Programs, home: Path) -> None:
        self._shop, self._programs, self._home = shop, programs, home
        self._cache = ["--cache", str(home / "cache")]
        export, password = blocks("bash")[1].splitlines()
        (self._storage,) = re.findall(r"GRU4REC_STORAGE=(\S+)", export)
        self._storage = self._storage.replace("db.example.org:5432/studies", server.url.partition("@")[2])
        password = password.replace("db.example.org:5432:studies", f"{server.address}:{server.port}:postgres")
        done = self.start(None, password.replace("PASSWORD", PASSWORD))
        done.communicate()
        assert done.returncode == 0
        assert server.url == self._storage
        self.seen_from_here = f"postgresql://tuner@/postgres?host={server.data}&port={server.port}"

    def start(self, host: Host | None, line: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ, "HOME": str(self._home), "GRU4REC_STORAGE": self._storage, "TMPDIR": str(self._home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = ["bash", "-c", line]
        return self._programs.start_command(
            command if host is None else host.words(*command), cwd=self._shop, env=environment
        )

    def tune(self, host: Host, line: str, *more: str) -> subprocess.Popen[str]:
        assert f"\n{line}\n" in PAGE
        return self.start(host, f"exec {line} {shlex.join([*STEADY, *self._cache, *more])}")


def test_commands_tune_on_two_hosts_as_one_worker_does(shop: Path, programs: Programs, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    home = tmp_path / "home"
    home.mkdir()
    with two_hosts() as (one, two), running_server(one) as server:
        machines = Machines(shop, server, programs, home)
        on_one, on_two = (machines.tune(host, "./tune.sh --join") for host in (one, two))
        programs.kill_worker(machines.seen_from_here)  # its program starts another
        on_two.send_signal(signal.SIGTERM)
        late = machines.tune(two, "./tune.sh --join", "--job", "late")
        said = [program.communicate(timeout=120) for program in (on_one, on_two, late)]
        assert [program.returncode for program in (on_one, on_two, late)] == [0, 143, 0], said
        run_dir = ["--run-dir", str(tmp_path / "best"), "--no-report"]
        result = machines.tune(two, "./tune.sh --resume --workers 0 --run-dir best -fm 1 5 10 20", *run_dir)
        stdout, stderr = result.communicate(timeout=120)
        assert result.returncode == 0, stderr
    assert PASSWORD not in "".join([stdout, stderr, *(text for pair in said for text in pair)])
    assert [line.split(":")[0] for line in stdout.splitlines()][-4:] == [f"Recall@{k}" for k in (1, 5, 10, 20)]
    assert not list(home.glob(".gru4rec-join-*"))
    alone = words(shop, tmp_path / "alone", *STEADY, "-pm", "mrr", "--no-report", "-q", fixed=LONG)
    assert call(alone)[0] == 0
    assert by_place(tmp_path / "best") == by_place(tmp_path / "alone")
    assert sorted(by_place(tmp_path / "best")) == [0, 1, 2, 3]
    best = [(tmp_path / name / "best_params.py").read_text() for name in ("best", "alone")]
    assert best[0] == best[1]
    assert {row["reason"] for row in study_of(tmp_path / "best")["trials"] if row["state"] != "lost"} == {None}


# --- the text ---

VARIABLES = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "JOB_COMPLETION_INDEX": "1", "SLURM_CPUS_PER_TASK": "16"}


def command_lines() -> Iterator[list[str]]:
    """All commands of the page that are ours, or torchrun's, as words."""
    texts = [block.replace("\\\n", " ") for block in blocks("bash")] + re.findall(r"ExecStart=(.*)", PAGE)
    texts += [shell_of(container) for pod in pods().values() for container in pod["containers"]]
    texts += re.findall(r"(?<!`)`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL))
    for text in texts:
        for found in re.finditer(r"((?:^|(?<=[\s/'{]))(?:gru4rec [a-z]+|\S*tune\.sh|torchrun) [^\n]*)", text):
            line = re.split(r"\s(?:[>#<;}]|&&|\|\|)|'?$", found[1].replace(' "$@"', ""))[0]
            for name, value in VARIABLES.items():
                line = line.replace(f"${name}", value)
            yield shlex.split(line)


def test_commands_have_flags_that_exist() -> None:
    from torch.distributed.run import get_args_parser

    from gru4rec.cli.main import _parser
    from gru4rec.cli.run import _parser as run_parser

    (script,) = re.findall(r"exec gru4rec (tune .*) \"\$@\"", blocks("bash")[0].replace("\\\n", ""))
    asked = []
    for line in command_lines():
        program, given = line[0], line[1:]
        asked.append(" ".join([Path(program).name, *given]))
        if program == "gru4rec":
            _parser().parse_args(given)
        elif program == "torchrun":
            launched = get_args_parser().parse_args(given)
            assert (launched.nnodes, launched.node_rank, launched.training_script) == ("2", 1, "run.py")
            run_parser().parse_args(launched.training_script_args)
        else:
            _parser().parse_args([*shlex.split(script), *given])
    for start, n_times in (("tune.sh --join", 5), ("tune.sh --resume", 1), ("torchrun", 2), ("gru4rec update", 1)):
        assert sum(line.startswith(start) for line in asked) == n_times, asked


def test_scripts_are_bash(tmp_path: Path) -> None:
    scripts = [*blocks("bash"), *(shell_of(container) for pod in pods().values() for container in pod["containers"])]
    batches = [script for script in scripts if "#SBATCH" in script]
    assert (len(batches), len(scripts)) == (2, 9)
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
    for script in batches:  # srun and torchrun are told of as many as were asked for
        asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", script, flags=re.MULTILINE))
        assert {"array", "cpus-per-task", "time", "output"} <= asked.keys()
        assert script.count("#SBATCH") == len(re.findall(r"^#SBATCH --\S+$", script, flags=re.MULTILINE))
        if "torchrun" in script:
            assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("2", "1", "4")
            assert "--nproc-per-node 4" in script


def test_unit_is_one_for_systemd(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze")
    (unit,) = blocks("ini")
    script = tmp_path / "tune.sh"
    script.write_text(blocks("bash")[0])
    script.chmod(0o755)
    path = tmp_path / unit.splitlines()[0].rpartition("/")[2]
    path.write_text(unit.replace("/srv/shop/tune.sh", str(script)))
    done = subprocess.run([analyze, "verify", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr


def test_manifests_name_only_what_there_is() -> None:
    kinds = {(each["kind"], each["metadata"]["name"]) for each in manifests()}
    assert kinds == {("Secret", "tune"), ("Job", "tune"), ("Service", "train"), ("Job", "train"), ("CronJob", "update")}
    for pod in pods().values():
        assert pod["restartPolicy"] == "Never"
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["workingDir"] == container["volumeMounts"][0]["mountPath"] == "/srv/shop"
    by_kind = {(each["kind"], each["metadata"]["name"]): each for each in manifests()}
    assert pods()["tune"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "tune"}}]
    assert list(by_kind["Secret", "tune"]["stringData"]) == ["GRU4REC_STORAGE"]
    train = by_kind["Job", "train"]["spec"]
    assert by_kind["Service", "train"]["spec"]["selector"] == {"job-name": "train"}
    assert pods()["train"]["subdomain"] == "train"
    line = shell_of(pods()["train"]["containers"][0])
    assert (train["completions"], train["parallelism"]) == (2, 2)
    assert "--nnodes 2 " in line
    assert "--master-addr train-0.train " in line
    assert "completions" not in by_kind["Job", "tune"]["spec"]


def test_daily_update_goes_on_where_it_was_interrupted_and_trains_no_day_twice(tmp_path: Path) -> None:
    script = shell_of(pods()["update"]["containers"][0])
    folder = tmp_path / "shop"
    for name in ("logs", "models"):
        (folder / name).mkdir(parents=True)
    log = pd.read_csv(GOLDEN / "train.tsv", sep="\t")
    is_new = log["SessionId"] % 2 == 0
    log[~is_new].to_parquet(folder / "history.parquet")
    for days_ago in (0, 1, 2):  # the test may run at midnight
        day = datetime.now(UTC) - timedelta(days=days_ago)
        log[is_new].to_parquet(folder / "logs" / f"{day:%F}.parquet")
    first, current = folder / "models" / "first.gru4rec", folder / "models" / "current.gru4rec"
    gru = GRU4Rec(layers=[4], batch_size=8, n_sample=8, n_epochs=1, device="cpu")
    gru.fit(log[~is_new], keep_state=True)
    gru.savemodel(first)
    current.symlink_to(first.name)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    models, written_ns = [], []
    for _ in range(2):
        subprocess.run(["bash", "-ec", script], cwd=folder, env=environment, check=True, capture_output=True)
        models.append(current.resolve())
        written_ns.append(models[-1].stat().st_mtime_ns)
        current.unlink()  # as if it had been interrupted before this link was made
        current.symlink_to(first.name)
    assert models[0] == models[1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.gru4rec", models[0].name)
    assert written_ns[0] == written_ns[1]
    assert len(list((folder / "models").iterdir())) == 3
    updated = GRU4Rec.loadmodel(models[0], device="cpu")
    assert updated.support.sum() == gru.support.sum() + is_new.sum()
