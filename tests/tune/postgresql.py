"""A real PostgreSQL server, of Debian's package ``postgresql``, run as an unprivileged user in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed.hosts import Host

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

PASSWORD = "s3cret"


class Server:
    """A server in a folder of its own, started and stopped by its process id.

    Args:
        folder: Its own.
        host: Where it runs; it wants a password there. None: on this machine, without one.
    """

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.data, self.host = folder / "data", host
        self.address = "127.0.0.1" if host is None else host.address
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://tuner@{self.address}:{self.port}/postgres"
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, self.user)
        made = self._run("initdb", "-D", self.data, "-U", "tuner", "-A", "trust", "-N", "--pwfile", folder / "password")
        assert made.wait() == 0
        if host is not None:
            with open(self.data / "pg_hba.conf", "a") as file:
                file.write(f"host all all {host.address}/24 scram-sha-256\n")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ["fsync=off", "max_connections=40", f"port={self.port}", f"unix_socket_directories={self.data}"]
        options = [word for setting in settings for word in ("-c", setting)]
        self.process = self._run("postgres", "-D", self.data, "-h", self.address, *options)
        ready = [str(PROGRAMS[-1] / "pg_isready"), "-q", "-h", str(self.data), "-p", str(self.port)]
        until = time.monotonic() + 30
        while subprocess.run(ready, check=False).returncode != 0:
            assert time.monotonic() < until
            time.sleep(0.1)

    def stop(self) -> None:
        """End it as a shutdown of its machine does: connections are cut."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def _run(self, program: str, *words: object) -> subprocess.Popen[bytes]:
        command = [str(PROGRAMS[-1] / program), *map(str, words)]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups", *command]
        return subprocess.Popen(
            command if self.host is None else self.host.words(*command), cwd="/", stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env=os.environ | {"LC_ALL": "C.UTF-8"},
        )  # fmt: skip


@contextlib.contextmanager
def running_server(host: Host | None = None) -> Iterator[Server]:
    """Run a server for a block."""
    if not PROGRAMS:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="gru4rec-postgresql-"))
    try:
        running = Server(folder, host)
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
