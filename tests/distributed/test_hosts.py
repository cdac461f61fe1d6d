"""Training on two hosts that a network connects: the same as on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN, ROOT
from distributed.hosts import Host, two_hosts
from distributed.launching import ENVIRONMENT, together

from gru4rec.bundle import load_bundle


def command(model: Path) -> list[str]:
    settings = "layers=16,batch_size=12,n_sample=32,loss=bpr-max,dropout_p_hidden=0.2,seed=3,n_epochs=1"
    log = GOLDEN / "train.tsv"
    return [str(word) for word in (ROOT / "run.py", log, "-ps", settings, "-d", "cpu", "-s", model)]


def on(host: Host, number: int, first: Host, model: Path) -> subprocess.Popen[str]:
    how = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
    how += ["--master-addr", first.address, "--master-port", "29511"]
    line = host.words(sys.executable, "-m", "torch.distributed.run", *how, *command(model))
    environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": host.interface}
    return subprocess.Popen(line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.skipif(os.name != "posix", reason="network namespaces are Linux's")
def test_two_hosts_train_the_model_of_two_processes(tmp_path: Path) -> None:
    with two_hosts() as hosts:
        sent_before = [host.sent_bytes() for host in hosts]
        started = [on(host, number, hosts[0], tmp_path / "hosts.gru4rec") for number, host in enumerate(hosts)]
        try:
            said = [process.communicate(timeout=200) for process in started]
        finally:
            for process in started:
                process.kill()
        sent = [host.sent_bytes() - before for host, before in zip(hosts, sent_before, strict=True)]
    assert [process.returncode for process in started] == [0, 0], said
    assert ["Epoch1" in stdout for stdout, _ in said] == [True, False]  # the first process speaks
    assert min(sent) > 1_000_000  # it went over the cable
    local = together(2, *command(tmp_path / "local.gru4rec"))
    assert [status for status, *_ in local] == [0, 0], local
    hosts_model, local_model = (load_bundle(tmp_path / f"{name}.gru4rec") for name in ("hosts", "local"))
    for name, values in local_model.weights.items():
        assert np.array_equal(hosts_model.weights[name], values), name
