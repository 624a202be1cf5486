"""The doorbell: tells workers that a job waits. The row is the truth; a lost or doubled message is harmless."""

import logging
import threading
import time
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

TASK = "dpdy.run_job"
QUEUE = "dpdy"
SILENCE_SECONDS = 5.0  # a request must not wait for a broker that did not answer a moment ago


class JobQueue(Protocol):
    """How a waiting job is announced."""

    def announce(self, job_id: str) -> bool:
        """Ring once, after the commit; False if it could not be done. Never raises: workers look for rows too."""

    def waiting(self) -> int | None:
        """Messages that no worker has taken yet; None if that cannot be found out now."""


class WakeQueue:
    """Wakes the worker thread of this process (embedded)."""

    def __init__(self) -> None:
        self.bell = threading.Event()

    def announce(self, job_id: str) -> bool:  # noqa: ARG002  # the thread looks into the database itself
        self.bell.set()
        return True

    def waiting(self) -> int:
        return int(self.bell.is_set())


class CeleryQueue:
    """Sends a Celery message by task name: the API never imports the worker."""

    def __init__(self, broker_url: str) -> None:
        self._celery = make_celery(broker_url)
        self._silent_until = 0.0

    def announce(self, job_id: str) -> bool:
        if time.monotonic() < self._silent_until:
            return False
        try:
            self._celery.send_task(TASK, args=[job_id], queue=QUEUE, ignore_result=True, retry=False)
        except (OperationalError, OSError) as error:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            log.warning("the broker does not answer (%s); workers will find job %s in the database", error, job_id)
            return False
        return True

    def waiting(self) -> int | None:
        try:
            with self._celery.connection_for_write() as connection:
                declared = connection.default_channel.queue_declare(QUEUE, passive=True)
                return int(declared.message_count)
        except connection.channel_errors:
            return 0  # nobody has declared the queue yet
        except (OperationalError, OSError, *connection.connection_errors):
            return None


def make_celery(broker_url: str) -> Celery:
    """The Celery application of the API and of the workers."""
    app = Celery("dpdy", broker=broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],  # the broker is not trusted: no pickle
        task_serializer="json",
        task_default_queue=QUEUE,
        task_ignore_result=True,  # the row is the result
        broker_connection_timeout=2,
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker outlives its broker
    )
    return app
