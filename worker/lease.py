"""The lease of a running attempt: a thread of its own renews it and hears of cancellation, whatever else goes on."""

import logging
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from api.db import queries
from api.db.models import Job
from api.db.session import Sessions
from api.jobs import service, states
from api.logs import carrying
from api.settings import Settings
from worker.supervisor import Stop

log = logging.getLogger(__name__)

PULSE_SECONDS = 0.5  # how soon a cancellation is seen


class Lease:
    """Holds one attempt for as long as the block lasts.

    A database that does not answer loses no attempt: nobody else can take it over meanwhile, and the first renewal that
    gets through says whether somebody has.
    """

    def __init__(self, job: Job, settings: Settings, sessions: Sessions, stopping: threading.Event) -> None:
        self._job_id, self._attempt, self._owner = job.id, job.attempt, job.owner or ""
        self._settings = settings
        self._sessions = sessions
        self._stopping = stopping
        self._ends_at = float("inf")  # of our own clock, which may be off: only its pace counts
        if job.run_deadline is not None and job.heartbeat_at is not None:
            self._ends_at = time.monotonic() + (job.run_deadline - job.heartbeat_at).total_seconds()
        self._stop: Stop | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=carrying(self._beat), name=f"lease-{job.id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wanted_stop(self) -> Stop | None:
        """Why the child should stop now, if it should."""
        if self._stop:
            return self._stop
        if time.monotonic() >= self._ends_at:
            return "deadline"
        return "yield" if self._stopping.is_set() else None

    def give_up(self) -> None:
        """A write of this attempt was refused: it belongs to another worker."""
        self._stop = "lost"

    def renew(self) -> bool:
        """Write a sign of life; False if the attempt is over. Raises SQLAlchemyError."""
        with self._sessions.begin() as session:
            state = service.heartbeat(
                session, self._job_id, self._attempt, self._settings.lease_seconds, worker=self._owner
            )
        if state is None:
            self.give_up()
        elif state == states.CANCELLING:
            self._stop = "cancel"
        return state is not None

    def _beat(self) -> None:
        renewed = time.monotonic()
        while self._stop != "lost" and not self._ended.wait(PULSE_SECONDS):
            try:
                if time.monotonic() - renewed >= self._settings.heartbeat_seconds:
                    self.renew()
                    renewed = time.monotonic()
                self._look()
            except SQLAlchemyError as error:
                log.warning("job %s: the database does not answer, trying again: %s", self._job_id, error)

    def _look(self) -> None:
        """Hear of a cancellation, or that this worker must yield, between two renewals, by reading only."""
        with self._sessions() as session:
            if queries.is_cancelling(session, self._job_id, self._attempt):
                self._stop = "cancel"
            elif queries.drain(session, self._owner) == "yield":
                self._stop = "yield"
