"""Hosts with a network of their own: a Linux network namespace each, and one cable to this machine that can be pulled.

Nothing but what `serve` names can be reached from it. Needs root and `ip` (iproute2).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.tcp_proxy import tcp_proxy

NUMBERS = count(os.getpid() % 16000)  # of cables, so that two runs of the tests on one machine do not meet
POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Network:
    """One host's. `here`: the address of this machine at the other end of its cable."""

    name: str
    here: str
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    def serve(self, target: int | Path) -> str:
        """Let the host reach a port or Unix socket of this machine; the address and port to be used there."""
        proxy = self.stack.enter_context(tcp_proxy(target, address=self.here))
        return f"{self.here}:{proxy.port}"

    def pull(self) -> None:
        """Pull the cable: no packet passes, open connections stay open."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def plug(self) -> None:
        _ip("-n", self.name, "link", "set", "eth0", "up")


@contextmanager
def network() -> Iterator[Network]:
    number = next(NUMBERS)
    name, end = f"dpdy-{number}", f"dpdy{number}"
    block = f"198.18.{number // 64 % 256}.{number % 64 * 4}"  # of RFC 2544: for tests, and routed by nobody
    here, there = (f"{block.rpartition('.')[0]}.{int(block.rpartition('.')[2]) + host}" for host in (1, 2))
    _ip("netns", "add", name)
    try:
        _ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{here}/30", "dev", end)
        _ip("link", "set", end, "up")
        for words in (
            ("address", "add", f"{there}/30", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", name, *words)
        made = Network(name, here)
        with made.stack:
            yield made
    finally:
        _ip("netns", "del", name)  # and with it both ends of the cable
