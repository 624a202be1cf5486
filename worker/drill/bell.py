"""Doorbells of a drill: one that is lost on the way, and none at all."""

from collections.abc import Callable

from api.jobs.queue import JobQueue


class Mute:
    """Announces nothing and says so: what waits for its message stays in the outbox, for others to send."""

    def announce(self, job_id: str) -> bool:  # noqa: ARG002
        return False

    def waiting(self) -> int | None:
        return None


class Bell:
    """The service's own, but messages of `mine` can be lost after they were taken, as by a broker that is wiped."""

    def __init__(self, real: JobQueue, mine: Callable[[str], bool]) -> None:
        self._real, self._mine = real, mine
        self.broken = False
        self.sent: set[str] = set()

    def announce(self, job_id: str) -> bool:
        if self.broken and self._mine(job_id):
            return True
        sent = self._real.announce(job_id)
        if sent:
            self.sent.add(job_id)
        return sent

    def waiting(self) -> int | None:
        return self._real.waiting()
