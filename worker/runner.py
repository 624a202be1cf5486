"""One attempt from claim to end: the table of contents of the worker."""

import logging
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.db import queries
from api.db.models import Artifact, Job, now
from api.db.session import Sessions
from api.jobs import service, states
from api.jobs.files import Files
from api.jobs.logs import JobLog
from api.jobs.queue import JobQueue
from api.jobs.removal import remove_job
from api.jobs.uploads import child_environment
from api.settings import Settings
from dpdy_core import __version__
from dpdy_core.config import RunConfig
from dpdy_core.rundir import RunDir, read_json, write_json
from worker.reporter import JobReporter
from worker.supervisor import Outcome, supervise

log = logging.getLogger(__name__)

EXPECTED_FAILURES = (2, 3, 4)  # exit codes with which the engine says what is wrong
LONGEST_PATH = 500
STOPPING_PATIENCE = 10.0


class Runner:
    """Runs one job at a time, whoever asks: the message, the poll, or the embedded service."""

    def __init__(self, settings: Settings, sessions: Sessions, queue: JobQueue, worker_id: str) -> None:
        self.settings = settings
        self.sessions = sessions
        self.queue = queue
        self.worker_id = worker_id
        self.files = Files(settings.storage, settings.min_free_bytes)
        self.stopping = threading.Event()
        self._busy = threading.Lock()

    def run(self, job_id: str) -> bool:
        """Claim the job and work until its attempt ends. False if it could not be claimed, or this worker is busy."""
        if self.stopping.is_set() or not self._busy.acquire(blocking=False):
            return False
        try:
            with self.sessions.begin() as session:
                job = service.claim(session, job_id, self.worker_id)
            if job is not None:
                self._attempt(job)
            return job is not None
        finally:
            self._busy.release()

    def run_next(self) -> bool:
        """Run the job that waits longest. False if there is none, or this worker is busy or stopping."""
        if self.stopping.is_set() or self._busy.locked():
            return False
        with self.sessions() as session:
            waiting = queries.queued_jobs(session, limit=5)
        return any(self.run(job_id) for job_id in waiting)

    def stop(self) -> None:
        """Claim nothing more; the running child checkpoints and its job goes back to the queue."""
        self.stopping.set()

    def wait_idle(self, seconds: float) -> bool:
        """Wait for the running attempt to end; False if it did not."""
        idle = self._busy.acquire(timeout=seconds)
        if idle:
            self._busy.release()
        return idle

    def _attempt(self, job: Job) -> None:
        run = RunDir(self.files.run(job.id))
        journal = JobLog(self.files.log(job.id), job.attempt, self.settings.max_log_bytes)
        journal.write(f"attempt {job.attempt} starts on {self.worker_id}", "worker")
        outcome, artifacts, trouble = None, [], ""
        with JobReporter(job, run.root, self.settings, self.sessions, self.stopping) as reporter:
            try:
                command = self._prepare(job, run)
                grace = self.settings.grace_seconds
                outcome = supervise(
                    command,
                    reporter.on_event,
                    journal.write,
                    reporter.wanted_stop,
                    grace,
                    child_environment(self.settings),
                )
                if outcome.stop != "lost":
                    artifacts = collect_artifacts(job, run, outcome)
            except Exception as error:
                log.exception("job %s: attempt %s could not be run", job.id, job.attempt)
                trouble = f"the worker could not run it ({type(error).__name__}: {error})"
        if outcome and outcome.stop == "lost":
            log.warning("job %s: another worker has taken over attempt %s", job.id, job.attempt)
            return
        state = self._conclude(job, run, outcome, trouble, reporter.problem, artifacts)
        journal.write(f"attempt {job.attempt} ended: {state or 'taken over'}", "worker")
        log.info("job %s: attempt %s ended: %s", job.id, job.attempt, state or "taken over")
        if state == states.QUEUED:
            self.queue.announce(job.id)
        elif state is not None:
            remove_job(self.sessions, self.files, job.id)

    def _prepare(self, job: Job, run: RunDir) -> list[str]:
        """Write what the child reads, and return its command."""
        run.renders.mkdir(parents=True, exist_ok=True)
        progress = ["--progress", "json", "--supervised"]
        if job.kind == "render":
            path, document = job.config["path"], job.camera_paths[0]
            out = str(run.renders / f"{Path(path).stem}.mp4")
            if isinstance(document, dict):
                file = run.camera_paths / f"{job.id}.json"  # no file of the parent run has this name
                write_json(file, document)
                path = str(file)
            options = [f"--{key}={job.config[key]}" for key in ("fps", "width") if job.config[key] is not None]
            parent = str(self.files.run(job.parent_id or ""))
            return [*self.settings.engine, "render", parent, "--path", path, "--out", out, *options, *progress]
        for name, document in zip(job.config["render"]["paths"], job.camera_paths, strict=False):
            if isinstance(document, dict):
                write_json(run.root / name, document)
        if not run.config_file.exists():
            with self.sessions() as session:
                upload = queries.upload(session, job.upload_id or "")
            if upload is None or upload.deleted_at:
                raise FileNotFoundError(f"upload {job.upload_id} is gone")
            run.write_config(RunConfig.model_validate(job.config), self.files.upload(upload), {"dpdy": __version__})
        return [*self.settings.engine, "run", str(run.root), "--attempt", str(job.attempt), *progress]

    def _conclude(
        self,
        job: Job,
        run: RunDir,
        outcome: Outcome | None,
        trouble: str,
        problem: dict[str, Any] | None,
        artifacts: list[Artifact],
    ) -> str | None:
        """Write how the attempt ended, however long the database is away; the new state, None if it was taken over."""
        verdict = judge(outcome, problem) if outcome else None
        metrics = read_metrics(run) if verdict and verdict[0] == states.SUCCEEDED else None
        yielded = outcome is not None and outcome.stop == "yield"
        reason = "its worker stopped and gave it back" if yielded else (outcome.crash if outcome else trouble)

        def write(session: Session) -> str | None:
            if verdict is None:
                limit = None if yielded else self.settings.max_attempts
                state = service.give_back(session, job.id, job.attempt, reason, limit)
            else:
                state = service.finish(session, job.id, job.attempt, verdict[0], verdict[1], metrics=metrics)
            if state is not None and artifacts:
                session.execute(delete(Artifact).where(Artifact.job_id == job.id))
                session.add_all(artifacts)
            return state

        waited = 0.0
        while True:
            try:
                with self.sessions.begin() as session:
                    return write(session)
            except SQLAlchemyError as error:
                log.warning("job %s: the end of attempt %s is not written yet: %s", job.id, job.attempt, error)
                if self.stopping.is_set() and waited >= STOPPING_PATIENCE:
                    return None  # the lease runs out and another worker goes on from the last checkpoint
                threading.Event().wait(1.0)
                waited += 1.0


def judge(outcome: Outcome, problem: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None] | None:
    """Terminal state and problem of an attempt that ended so; None if it has no result and another must follow."""
    if outcome.code == 0:
        return states.SUCCEEDED, None
    if outcome.stop == "cancel":
        return states.CANCELLED, None
    if outcome.stop == "deadline":
        detail = f"it was stopped after {outcome.seconds:.0f} s of this attempt"
        remedy = "retry goes on from the last checkpoint without a deadline"
        return states.FAILED, _problem("run-deadline", "The job was not finished in time", detail, remedy)
    if outcome.code in EXPECTED_FAILURES:
        detail = "the run failed without saying why"
        return states.FAILED, problem or _problem("job-failed", "The job failed", detail, "read its log")
    return None


def _problem(type: str, title: str, detail: str, remedy: str) -> dict[str, Any]:
    return {"type": type, "title": title, "detail": detail, "remedy": remedy, "retryable": True}


def collect_artifacts(job: Job, run: RunDir, outcome: Outcome) -> list[Artifact]:
    """The files of the manifest, as far as they still are what it says; the engine writes it whenever it can."""
    if outcome.code == 0 and (job.kind == "render" or not run.manifest_file.exists()):
        run.write_manifest(job.attempt)
    if not run.manifest_file.exists():
        return []
    artifacts = []
    for entry in read_json(run.manifest_file)["files"]:
        file = run.root / entry["path"]
        if file.is_file() and file.stat().st_size == entry["size"] and len(entry["path"]) <= LONGEST_PATH:
            artifacts.append(Artifact(job_id=job.id, created_at=now(), **entry))
    return artifacts


def read_metrics(run: RunDir) -> dict[str, Any] | None:
    """evaluation/metrics.json without the single views."""
    if not run.metrics_file.exists():
        return None
    return {key: value for key, value in read_json(run.metrics_file).items() if key != "views"}
