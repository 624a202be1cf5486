"""One attempt from claim to end: the table of contents of the worker."""

import logging
import shutil
import threading
from contextlib import suppress

from pydantic import ValidationError
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.db import queries
from api.db.models import Artifact, Job
from api.db.session import Sessions
from api.errors import ServiceError
from api.jobs import faults, service, states
from api.jobs.files import claim_scratch, make_files
from api.jobs.logs import JobLog
from api.jobs.outbox import deliver
from api.jobs.queue import JobQueue
from api.jobs.removal import remove_job
from api.jobs.uploads import child_environment
from api.logs import about
from api.settings import Settings
from dpdy_core import __version__
from dpdy_core.errors import DpdyError
from dpdy_core.faults import tell
from dpdy_core.rundir import RunDir
from worker.devices import Gpu, Seat, list_gpus, take_seat
from worker.folder import LESS_MEMORY, collect_artifacts, prepare, read_metrics, save_memory
from worker.lease import Lease
from worker.mirror import Mirror
from worker.reporter import JobReporter
from worker.supervisor import Outcome, Stop, supervise
from worker.verdict import Verdict, judge

log = logging.getLogger(__name__)
engine_log = logging.getLogger("engine")

STOPPING_PATIENCE = 10.0
SILENCE = 0.4  # share of the lease after which a child without a pulse stops; it is killed at 0.6


class Runner:
    """Runs one job at a time, and one on each GPU, whoever asks: the poll, or a test."""

    def __init__(self, settings: Settings, sessions: Sessions, queue: JobQueue, worker_id: str) -> None:
        self.settings = settings
        self.sessions = sessions
        self.queue = queue
        self.worker_id = worker_id
        self.files = make_files(settings, worker_id)
        self._scratch = claim_scratch(self.files)  # a lock, held while this process lives
        self.gpus = list_gpus()
        self.stopping = threading.Event()
        self._beyond: set[str] = set()  # jobs with settings of another version: left to workers of that version
        self.unfit = ""  # why this worker must not take jobs, as long as it is so
        self.gpus_gone = False
        self._busy = threading.Lock()

    def run(self, job_id: str) -> bool:
        """Claim the job and work until its attempt ends. False if it could not be claimed, or this worker is busy."""
        if self.stopping.is_set() or not self._busy.acquire(blocking=False):
            return False
        try:
            with take_seat(self._working_gpus()) as seat:
                if seat is None or self.unfit:
                    return False
                with self.sessions.begin() as session:
                    job = service.claim(session, job_id, self.worker_id, self.settings.lease_seconds, seat.device)
                if job is not None:
                    with about(job=job.id, attempt=job.attempt, tenant=getattr(job, "tenant", None)):
                        self._attempt(job, seat)
                return job is not None
        finally:
            self._busy.release()

    def _working_gpus(self) -> list[Gpu]:
        """Our GPUs, seen just now; sets `unfit` if they, or the storage, are gone: a job here would be in vain."""
        before, self.unfit = self.unfit, ""
        present = [gpu for gpu in list_gpus() if gpu in self.gpus] if self.gpus else []
        self.gpus_gone = bool(self.gpus) and not present
        if self.gpus_gone:
            self.unfit = "its GPUs are gone"
        try:
            self.files.probe()
            self.files.check_space()
        except OSError as error:
            self.unfit = f"the storage cannot be written ({error.strerror})"
        except ServiceError as error:
            self.unfit = f"the storage is full ({error.detail})"
        if self.unfit and self.unfit != before:
            log.error("this worker takes no jobs: %s", self.unfit)
        return present

    def run_next(self) -> bool:
        """Run the job that waits longest. False if there is none, or this worker is busy or stopping."""
        if self.stopping.is_set() or self._busy.locked():
            return False
        with self.sessions() as session:
            draining = queries.drain(session, self.worker_id)
            waiting = [] if draining else queries.queued_jobs(session, limit=5 + len(self._beyond))
        for job_id in waiting:
            if job_id not in self._beyond and self.run(job_id):
                return True
            if self.unfit:
                break
        return False

    def stop(self) -> None:
        """Claim nothing more; the running child checkpoints and its job goes back to the queue."""
        self.stopping.set()

    def close(self) -> None:
        """Leave nothing in a scratch folder of our own."""
        if self._scratch is not None and not self._busy.locked():
            shutil.rmtree(self.files.root, ignore_errors=True)

    def wait_idle(self, seconds: float) -> bool:
        """Wait for the running attempt to end; False if it did not."""
        idle = self._busy.acquire(timeout=seconds)
        if idle:
            self._busy.release()
        return idle

    def _attempt(self, job: Job, seat: Seat) -> None:
        run = RunDir(self.files.run(job.id))
        journal = JobLog(self.files.log(job.id), job.attempt, self.settings.max_log_bytes)
        journal.write(f"attempt {job.attempt} starts on {self.worker_id}", "worker")
        artifacts: list[Artifact] = []
        with (
            Lease(job, self.settings, self.sessions, self.stopping) as lease,
            Mirror(job, self.files, self.settings, self.sessions, lease) as mirror,
        ):
            try:
                mirror.begin(job.parent_id, lambda text: journal.write(text, "worker"))
                with JobReporter(job, run.root, self.settings, self.sessions, lease, mirror.keep) as reporter:
                    outcome = self._supervise(job, run, reporter, journal, lease, seat)
                verdict = judge(outcome, reporter.problem)
                if outcome.stop == "lost" or not self._still_mine(lease):
                    log.warning("job %s: another worker has taken over attempt %s", job.id, job.attempt)
                    return
                artifacts = collect_artifacts(job, run, outcome.code)
                mirror.finish(verdict.state == states.SUCCEEDED, self.stopping, STOPPING_PATIENCE)
                artifacts = mirror.keep(artifacts)
            except Exception as error:
                verdict = self._blame(job, error)
            state = self._conclude(job, run, verdict, artifacts)
            journal.write(f"attempt {job.attempt} ended: {state or 'taken over'}", "worker")
        log.info("job %s: attempt %s ended: %s", job.id, job.attempt, state or "taken over")
        if state == states.QUEUED:
            deliver(self.sessions, self.queue)
        elif state is not None:
            remove_job(self.sessions, self.files, job.id)

    def _supervise(
        self, job: Job, run: RunDir, reporter: JobReporter, journal: JobLog, lease: Lease, seat: Seat
    ) -> Outcome:
        reserve = min(self.settings.reserve_free_bytes, self.settings.min_free_bytes)

        def wanted_stop() -> Stop | None:
            if stop := lease.wanted_stop():
                return stop
            with suppress(OSError):  # a disk that does not answer is the child's to report
                if self.files.free_bytes() < reserve:
                    return "full"
            return "stall" if reporter.seconds_without_progress() > self.settings.stall_seconds else None

        command = prepare(job, run, self.settings, self.sessions, self.files)
        environment = child_environment(self.settings) | seat.environment
        with self.sessions() as session:
            tight = queries.attempts_ended(session, job.id, faults.OUT_OF_MEMORY.type, job.first_attempt) > 0
        if tight:
            environment |= save_memory(job, run)
            journal.write(f"attempt {job.attempt} saves memory after it ran out: {LESS_MEMORY}", "worker")
            reporter.on_event({"event": "fallback", "message": f"attempt {job.attempt} saves memory: {LESS_MEMORY}"})

        def on_line(text: str) -> None:
            journal.write(text)
            engine_log.info("%s", text)

        grace = self.settings.grace_seconds
        return supervise(command, reporter.on_event, on_line, wanted_stop, grace, environment, seat.keep_open)

    def _still_mine(self, lease: Lease) -> bool:
        """Whether the run folder may still be written to; a database that does not answer has not given it away."""
        try:
            return lease.renew()
        except SQLAlchemyError:
            return True

    def _blame(self, job: Job, error: Exception) -> Verdict:
        """An error of the worker itself around the child."""
        log.error("job %s: attempt %s could not be run", job.id, job.attempt, exc_info=error)
        if isinstance(error, DpdyError):
            return Verdict(states.FAILED, error.problem())
        if isinstance(error, ValidationError):  # the API checked them: it is of another version than this worker
            self._beyond.add(job.id)
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            reason = f"worker {self.worker_id} (version {__version__}) does not know these settings: {wrong}"
            return Verdict(fault=faults.VERSION, reason=reason)
        known = tell(error)
        fault = faults.REPORTED.get(known.type) if known else None
        if isinstance(error, SQLAlchemyError):  # the database went away between the claim and the start
            fault = faults.INTERRUPTED
        reason = f"the worker could not run it ({type(error).__name__}: {error})"
        return Verdict(fault=fault or faults.NOT_STARTED, reason=reason)

    def _conclude(self, job: Job, run: RunDir, verdict: Verdict, artifacts: list[Artifact]) -> str | None:
        """Write how the attempt ended, however long the database is away; the new state, None if it was taken over."""
        metrics = read_metrics(run) if verdict.state == states.SUCCEEDED else None

        attempt, mine = (job.id, job.attempt), self.worker_id

        def write(session: Session) -> str | None:
            if verdict.state is None:
                state = service.give_back(session, *attempt, verdict.fault, verdict.reason, self.settings, mine)
            else:
                state = service.finish(session, *attempt, verdict.state, verdict.problem, worker=mine, metrics=metrics)
            if state is not None and artifacts:
                session.execute(delete(Artifact).where(Artifact.job_id == job.id))
                session.add_all(artifacts)
            return state

        waited, doubtful = 0.0, False
        while True:
            try:
                with self.sessions.begin() as session:
                    state = write(session)
                    return self._written_before(session, job) if state is None and doubtful else state
            except SQLAlchemyError as error:
                log.warning("job %s: the end of attempt %s is not written yet: %s", job.id, job.attempt, error)
                if self.stopping.is_set() and waited >= STOPPING_PATIENCE:
                    return None  # the lease runs out and another worker goes on from the last checkpoint
                threading.Event().wait(1.0)
                waited, doubtful = waited + 1.0, True

    def _written_before(self, session: Session, job: Job) -> str | None:
        """The job's state if our own earlier commit went through although its answer was lost."""
        mine = queries.attempt(session, job.id, job.attempt)
        if mine is None or mine.outcome in (None, faults.WORKER_LOST.type):
            return None
        return session.get_one(Job, job.id, populate_existing=True).state
