"""The threads of every worker: one runs waiting jobs, one repairs and shows that it is there, one sends webhooks."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from api.db.clock import database_now
from api.db.models import Worker
from api.db.session import Sessions
from api.jobs.queue import JobQueue, WakeQueue
from api.settings import Settings
from api.webhooks.sender import Sender
from dpdy_core import __version__
from worker.devices import describe
from worker.runner import Runner
from worker.sweep import sweep

QUIET_HEARTBEATS = 3

log = logging.getLogger(__name__)


class Station:
    """A runner with its threads. A message only rings; the poll finds the job, with or without one."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        queue: JobQueue,
        on_gpus_gone: Callable[[], None] | None = None,
    ) -> None:
        """`on_gpus_gone`: what a worker does that has lost its GPUs, besides taking no more jobs."""
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.runner = Runner(settings, sessions, queue, self.worker_id)
        self._settings = settings
        self._sessions = sessions
        self._queue = queue
        self._sender = Sender(settings, sessions)
        self._bell = queue.bell if isinstance(queue, WakeQueue) else threading.Event()
        self._on_gpus_gone = on_gpus_gone
        self._started: datetime | None = None
        self._quiet_until = 0.0  # no reaping: after an outage of the database its workers first renew their leases
        self._threads = [
            threading.Thread(target=self._loop, args=(self._poll,), name="poll", daemon=True),
            threading.Thread(target=self._loop, args=(self._sweep,), name="sweep", daemon=True),
            threading.Thread(target=self._loop, args=(self._send,), name="webhooks", daemon=True),
        ]

    def start(self) -> None:
        """Show this worker and begin to look for jobs."""
        self._show()
        for thread in self._threads:
            thread.start()

    def ring(self) -> None:
        """Look for a job now."""
        self._bell.set()

    def request_stop(self) -> None:
        """Claim nothing more, let the running child checkpoint. Returns at once; safe in a signal handler."""
        self.runner.stop()
        self._bell.set()

    def stop(self) -> None:
        """Stop, and wait until the running job is back in the queue."""
        self.request_stop()
        self._sender.close()
        self.runner.wait_idle(self._settings.grace_seconds + 15)
        for thread in self._threads:
            thread.join(timeout=5)
        self.runner.close()
        try:
            with self._sessions.begin() as session:
                if row := session.get(Worker, self.worker_id):
                    session.delete(row)
        except SQLAlchemyError as error:
            log.warning("the worker's row stays until it is old: %s", error)

    def _loop(self, work: Callable[[], None]) -> None:
        while not self.runner.stopping.is_set():
            try:
                work()
            except SQLAlchemyError as error:
                log.warning("the database does not answer, trying again: %s", error)
                self._quiet_until = time.monotonic() + QUIET_HEARTBEATS * self._settings.heartbeat_seconds
                self.runner.stopping.wait(1.0)
            except Exception:
                log.exception("trying again")
                self.runner.stopping.wait(5.0)

    def _poll(self) -> None:
        if not self.runner.run_next():
            if self.runner.gpus_gone and self._on_gpus_gone:
                self._on_gpus_gone()
            self._bell.wait(self._settings.poll_seconds)
            self._bell.clear()

    def _sweep(self) -> None:
        self._show()
        if (quiet := self._quiet_until - time.monotonic()) > 0:
            self.runner.stopping.wait(quiet)
            return
        sweep(self._sessions, self._queue, self.runner.files, self._settings)
        self.runner.stopping.wait(self._settings.sweep_seconds)

    def _send(self) -> None:
        self._sender.start_due()
        self.runner.stopping.wait(self._settings.poll_seconds)

    def _show(self) -> None:
        devices = describe(self.runner.gpus)
        with self._sessions.begin() as session:
            seen = database_now(session)
            self._started = self._started or seen
            session.merge(
                Worker(id=self.worker_id, version=__version__, devices=devices, started_at=self._started, seen_at=seen)
            )
