"""The one task: the doorbell. The row says what there is to do, so the message is done at once, whoever is busy."""

from collections.abc import Callable

from celery import Celery

from api.jobs.queue import TASK


def add_tasks(app: Celery, ring: Callable[[], None]) -> None:
    """Let a message to `app` ring."""

    @app.task(name=TASK, ignore_result=True)
    def run_job(job_id: str) -> None:  # noqa: ARG001  # a doubled, late or lost message must not matter
        """Look for waiting jobs now."""
        ring()
