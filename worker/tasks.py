"""The one task. Its message carries an id only; the row says everything else."""

from celery import Celery

from api.jobs.queue import TASK
from worker.runner import Runner


def add_tasks(app: Celery, runner: Runner) -> None:
    """Let `app` run jobs with `runner`."""

    @app.task(name=TASK, ignore_result=True)
    def run_job(job_id: str) -> None:
        """Run the job if it still waits; a doubled or late message does nothing."""
        runner.run(job_id)
