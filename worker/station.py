"""The two threads of every worker: one looks for waiting jobs, one repairs and shows that the worker is there."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from api.db.models import Worker, now
from api.db.session import Sessions
from api.jobs.queue import JobQueue, WakeQueue
from api.settings import Settings
from dpdy_core import __version__
from worker.devices import list_devices
from worker.runner import Runner
from worker.sweep import sweep

log = logging.getLogger(__name__)


class Station:
    """A runner with its threads. The poll is how jobs start when messages are lost; embedded, it is the only way."""

    def __init__(self, settings: Settings, sessions: Sessions, queue: JobQueue) -> None:
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.runner = Runner(settings, sessions, queue, self.worker_id)
        self._settings = settings
        self._sessions = sessions
        self._queue = queue
        self._bell = queue.bell if isinstance(queue, WakeQueue) else threading.Event()
        self._started = now()
        self._devices = list_devices()
        self._threads = [
            threading.Thread(target=self._loop, args=(self._poll,), name="poll", daemon=True),
            threading.Thread(target=self._loop, args=(self._sweep,), name="sweep", daemon=True),
        ]

    def start(self) -> None:
        """Show this worker and begin to look for jobs."""
        self._show()
        for thread in self._threads:
            thread.start()

    def request_stop(self) -> None:
        """Claim nothing more, let the running child checkpoint. Returns at once; safe in a signal handler."""
        self.runner.stop()
        self._bell.set()

    def stop(self) -> None:
        """Stop, and wait until the running job is back in the queue."""
        self.request_stop()
        self.runner.wait_idle(self._settings.grace_seconds + 15)
        for thread in self._threads:
            thread.join(timeout=5)
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
                self.runner.stopping.wait(1.0)
            except Exception:
                log.exception("trying again")
                self.runner.stopping.wait(5.0)

    def _poll(self) -> None:
        if not self.runner.run_next():
            self._bell.wait(self._settings.poll_seconds)
            self._bell.clear()

    def _sweep(self) -> None:
        self._show()
        sweep(self._sessions, self._queue, self.runner.files, self._settings)
        self.runner.stopping.wait(self._settings.sweep_seconds)

    def _show(self) -> None:
        row = Worker(
            id=self.worker_id, version=__version__, devices=self._devices, started_at=self._started, seen_at=now()
        )
        with self._sessions.begin() as session:
            session.merge(row)
