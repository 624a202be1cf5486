"""The Celery application of a production worker: a doorbell, nothing more."""

import logging
import os
import signal
from typing import Any

from celery import Celery, signals

from api.db.session import make_engine, make_sessions
from api.jobs.queue import QUEUE, CeleryQueue, make_celery
from api.settings import Settings
from dpdy_core.errors import BadSettings, GpuLost
from worker.station import Station
from worker.tasks import add_tasks

log = logging.getLogger(__name__)


def make_worker(settings: Settings) -> tuple[Celery, Station]:
    """The application with its one task, the doorbell, and the station that does the work."""
    if settings.broker_url is None:
        raise BadSettings("DPDY_BROKER_URL is not set", "set it to redis://..., or use `dpdy serve` without a broker")
    sessions = make_sessions(make_engine(settings.database))
    station = Station(settings, sessions, CeleryQueue(settings.broker_url), _ask_for_restart)
    app = make_celery(settings.broker_url)
    app.conf.update(
        task_acks_late=False,  # the lease in the database replaces it: a broker's blip must not touch a long job
        worker_prefetch_multiplier=1,  # do not hold messages that an idle worker could take
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    add_tasks(app, station.ring)
    return app, station


def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then the child checkpoints and its job goes back to the queue."""
    app, station = make_worker(settings)

    def stopping(**_: Any) -> None:
        station.request_stop()

    def leave_logging_alone(**_: Any) -> None:
        """A receiver of this signal is all that Celery wants, to set up nothing itself."""

    signals.worker_shutting_down.connect(stopping)
    signals.setup_logging.connect(leave_logging_alone)
    station.start()
    # one thread is enough to ring; the station's own thread supervises the child, which does the work
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=[QUEUE],
        loglevel=settings.log_level.upper(),
        hostname=f"{station.worker_id}@dpdy",
        without_mingle=True,
        without_gossip=True,
        quiet=True,
    )
    try:
        worker.start()
    finally:
        station.stop()
    if station.runner.gpus_gone:
        raise GpuLost("the GPUs of this worker are gone", "restart it: a container gets its GPUs at its start")


def _ask_for_restart() -> None:
    log.error("the GPUs of this worker are gone: it ends, to be started again")
    os.kill(os.getpid(), signal.SIGTERM)
