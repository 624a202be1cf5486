"""What is done to the processes of a soak: one random fault every few seconds, in an order that the seed decides."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psycopg
import redis

from api.jobs.queue import CeleryQueue
from tests.faults.soak.members import Member, Members

PAUSE_SECONDS = (1.0, 4.0)
TICK_SECONDS = 0.05
DROP = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Damage:
    """Draws from a bag with each kind of fault as often as `KINDS` says, so that none is left out for long."""

    def __init__(self, members: Members, seed: int, tell: Callable[[str], None]) -> None:
        self.done: Counter[str] = Counter()
        self._members = members
        self._random = random.Random(seed)
        self._tell = tell
        self._bag: list[str] = []
        self._later: list[tuple[float, Callable[[], None]]] = []  # what ends a fault that lasts
        self._away = False  # PostgreSQL, at the moment
        self._queue = CeleryQueue(members.fleet.redis_url)

    def go_on(self, seconds: float) -> None:
        """Damage for so long; then all that lasts is ended."""
        until = time.monotonic() + seconds
        following = time.monotonic()
        try:
            while (now := time.monotonic()) < until:
                self._end_what_is_due(now)
                if now >= following:
                    following = now + self._random.uniform(*PAUSE_SECONDS)
                    self._one()
                time.sleep(TICK_SECONDS)
        finally:
            self._end_what_is_due(float("inf"))

    def _one(self) -> None:
        if not self._bag:
            self._bag = [name for name, times in KINDS.items() for _ in range(times)]
            self._random.shuffle(self._bag)
        name = self._bag.pop()
        seconds, number = self._random.uniform(0.0, 6.0), self._random.randrange(len(self._members.workers))
        self._tell(f"{name} ({seconds:.1f} s, worker {number})")
        getattr(self, f"_{name}")(self._members.workers[number], seconds)
        self.done[name] += 1

    def _end_what_is_due(self, now: float) -> None:
        due = [end for at, end in self._later if at <= now]
        self._later = [(at, end) for at, end in self._later if at > now]
        for end in due:
            end()

    def _after(self, seconds: float, end: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, end))

    # ---- the faults: each gets a worker and a number of seconds, some need neither

    def _worker_killed(self, worker: Member, seconds: float) -> None:
        worker.send(signal.SIGKILL, away=seconds)

    def _worker_stopped(self, worker: Member, seconds: float) -> None:
        worker.send(signal.SIGTERM, away=seconds)

    def _worker_frozen(self, worker: Member, seconds: float) -> None:
        """For up to two leases."""
        self._freeze(worker, 1.5 * seconds)

    def _engine_killed(self, worker: Member, _seconds: float) -> None:
        for pid in worker.engines():
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)

    def _engine_frozen(self, worker: Member, seconds: float) -> None:
        """Half of the times longer than the stall clock has patience."""
        for pid in worker.engines():
            _signal(pid, signal.SIGSTOP)
            self._after(4 * seconds, lambda pid=pid: _signal(pid, signal.SIGCONT))  # type: ignore[misc]

    def _redis_wiped(self, _worker: Member, _seconds: float) -> None:
        with suppress(redis.RedisError), redis.Redis.from_url(self._members.fleet.redis_url) as broker:
            broker.flushall()  # if it is there at all

    def _redis_killed(self, _worker: Member, seconds: float) -> None:
        self._members.redis.send(signal.SIGKILL, away=seconds)

    def _doorbells_doubled(self, _worker: Member, _seconds: float) -> None:
        for _ in range(10):
            self._queue.announce("any")

    def _postgres_crashed(self, _worker: Member, seconds: float) -> None:
        if self._away:
            return

        def start() -> None:
            self._members.postgres.start()
            self._away = False

        self._away = True
        self._members.postgres.crash()
        self._after(seconds, start)

    def _connections_dropped(self, _worker: Member, _seconds: float) -> None:
        url = self._members.postgres.url.replace("+psycopg", "")
        with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
            connection.execute(DROP)

    def _api_killed(self, _worker: Member, seconds: float) -> None:
        self._members.api.send(signal.SIGKILL, away=seconds / 3)

    def _api_stopped(self, _worker: Member, seconds: float) -> None:
        self._members.api.send(signal.SIGTERM, away=seconds / 3)

    def _api_frozen(self, _worker: Member, seconds: float) -> None:
        self._freeze(self._members.api, seconds / 2)

    def _freeze(self, member: Member, seconds: float) -> None:
        if member.runs():
            assert member.process is not None
            pid = member.process.pid
            member.process.send_signal(signal.SIGSTOP)
            self._after(seconds, lambda: _signal(pid, signal.SIGCONT))


KINDS = {
    "worker_killed": 4,
    "worker_stopped": 2,
    "worker_frozen": 3,
    "engine_killed": 4,
    "engine_frozen": 1,
    "redis_wiped": 2,
    "redis_killed": 2,
    "doorbells_doubled": 1,
    "postgres_crashed": 2,
    "connections_dropped": 2,
    "api_killed": 3,
    "api_stopped": 1,
    "api_frozen": 1,
}


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it was killed meanwhile
        os.kill(pid, number)
