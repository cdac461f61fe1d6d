"""Two hosts of our own on one machine: network namespaces that a cable connects. Needs root and iproute2."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """A network namespace.

    Attributes:
        name: Of the namespace.
        address: Its own, on the cable.
        interface: The cable's end.
    """

    name: str
    address: str
    interface: str

    def words(self, *command: object) -> list[str]:
        """Return a command line that runs a command on the host."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def sent_bytes(self) -> int:
        """Return the bytes that the host has sent over the cable."""
        where = f"/sys/class/net/{self.interface}/statistics/tx_bytes"
        return int(subprocess.check_output(self.words("cat", where), text=True))


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts, and take them away in the end; skips the test where that is not allowed."""
    if shutil.which("ip") is None:
        pytest.skip("no ip command: install iproute2 to test two hosts")
    mark = f"{os.getpid() % 100_000}"
    hosts = tuple(Host(f"gru4rec-{mark}-{end}", f"10.213.0.{end}", f"g4r{mark}{end}") for end in (1, 2))
    with contextlib.ExitStack() as stack:
        for host in hosts:
            made = subprocess.run(["ip", "netns", "add", host.name], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}. They need root")
            stack.callback(subprocess.run, ["ip", "netns", "del", host.name], check=False)
        first, second = hosts
        _ip("link", "add", first.interface, "type", "veth", "peer", "name", second.interface)
        for host in hosts:
            _ip("link", "set", host.interface, "netns", host.name)
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.interface)
            _ip("-n", host.name, "link", "set", host.interface, "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
        yield first, second


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
