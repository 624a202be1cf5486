"""From the child's events to the job's row.

Events only change a snapshot in memory; the thread writes it when it can. So a database that is away for a while
costs no event that matters, and no event waits for the database.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from api.db.models import Artifact, Job, now
from api.db.session import Sessions
from api.jobs import service
from api.jobs.stages import overall_eta, overall_progress, timestamp
from api.logs import carrying
from api.settings import Settings
from dpdy_core.rundir import sha256_file
from worker.lease import Lease

log = logging.getLogger(__name__)

MOST_WARNINGS = 100
Keep = Callable[[list[Artifact]], list[Artifact]]
MOST_PENDING = 1000


class JobReporter:
    """Keeps one attempt's row up to date. Use as a context manager around the attempt."""

    def __init__(self, job: Job, run: Path, settings: Settings, sessions: Sessions, lease: Lease, keep: Keep) -> None:
        """`keep` stores the files of artifacts, and returns those that are stored."""
        self.problem: dict[str, Any] | None = None
        self._job_id, self._attempt, self._worker = job.id, job.attempt, job.owner
        self._run = run
        self._settings = settings
        self._sessions = sessions
        self._lease = lease
        self._keep = keep
        self._lock = threading.Lock()
        self._stages = [dict(stage) for stage in job.stages]
        self._stage: str | None = None
        self._stage_eta: float | None = None
        self._reached = -1  # the furthest step of the current stage
        self._warnings = list(job.warnings)
        self._begun_at, self._started = job.progress, time.monotonic()
        self._advanced_at = self._started
        self._progress = job.progress
        self._pending: list[service.Event] = []
        self._previews: list[Artifact] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=carrying(self._keep_writing), name=f"report-{job.id}", daemon=True)

    def __enter__(self) -> "JobReporter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def seconds_without_progress(self) -> float:
        """Since the attempt last came to a stage or to a step where it had not been."""
        return time.monotonic() - self._advanced_at

    # ---- events of the child

    def on_event(self, event: dict[str, Any]) -> None:
        """Take in one event (see dpdy_core.progress)."""
        with self._lock:
            stage = next((row for row in self._stages if row["name"] == event.get("stage")), None)
            match event["event"]:
                case "start" | "skip" | "done" | "step" if stage is not None:
                    self._advance(stage, event)
                case "warning" | "fallback":
                    self._warn(event)
                case "preview":
                    self._preview(str(event["path"]))
                case "problem":
                    self.problem = {key: value for key, value in event.items() if key not in ("event", "time")}

    def _advance(self, stage: dict[str, Any], event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            stage |= {"state": "running", "started_at": timestamp(now()), "finished_at": None}
            self._stage, self._stage_eta, self._reached = stage["name"], None, -1
            self._advanced_at = time.monotonic()
        elif kind == "step":
            share = min(max(float(event["progress"]), stage["progress"]), 1.0)  # never back, whatever the engine says
            stage |= {"step": event["step"], "total": event["total"], "progress": share}
            if event["step"] > self._reached:  # of this attempt: a resumed one repeats steps, and that is progress
                self._reached, self._advanced_at = event["step"], time.monotonic()
            self._stage_eta = event.get("eta_seconds")
        else:
            finished = stage["finished_at"] if kind == "skip" and stage["finished_at"] else timestamp(now())
            stage |= {"state": "done", "progress": 1.0, "finished_at": finished}
            self._advanced_at = time.monotonic()
        self._progress = max(self._progress, overall_progress(self._stages))
        data = {"stage": stage["name"], "stage_state": stage["state"], "stage_progress": stage["progress"]}
        if kind == "step":
            data |= {"step": event["step"], "total": event["total"], "numbers": event.get("numbers") or {}}
        if kind == "done":
            data["seconds"] = event.get("seconds")
        self._add("progress" if kind == "step" else "stage", data)

    def _warn(self, event: dict[str, Any]) -> None:
        message = f"{event['stage']}: {event['message']}" if event.get("stage") else str(event["message"])
        if message not in self._warnings and len(self._warnings) < MOST_WARNINGS:
            self._warnings.append(message)
        self._add("warning", {"kind": event["event"], "message": message})

    def _preview(self, path: str) -> None:
        file = self._run / path
        if not file.resolve().is_relative_to(self._run.resolve()) or not file.is_file():
            log.warning("job %s: the preview %r is no file of the run", self._job_id, path)
            return
        self._previews.append(
            Artifact(
                job_id=self._job_id,
                path=path,
                size=file.stat().st_size,
                sha256=sha256_file(file),
                media_type="image/png" if file.suffix == ".png" else "image/jpeg",
                stage=self._stage,
                attempt=self._attempt,
                created_at=now(),
            )
        )
        self._add("preview", {"path": path})

    def _add(self, kind: str, data: dict[str, Any]) -> None:
        last = self._pending[-1] if self._pending else None
        if last and kind == last[0] == "progress" and last[1]["stage"] == data["stage"]:
            self._pending.pop()  # only the newest step of those not written yet
        self._pending.append((kind, data))
        del self._pending[:-MOST_PENDING]

    # ---- the thread

    def _keep_writing(self) -> None:
        while not self._ended.wait(self._settings.progress_seconds):
            try:
                self._write()
            except SQLAlchemyError as error:
                log.warning("job %s: the database does not answer, trying again: %s", self._job_id, error)
        try:
            self._write()
        except SQLAlchemyError as error:
            log.warning("job %s: its last progress was not written: %s", self._job_id, error)

    def _write(self) -> None:
        with self._lock:
            events, previews = self._pending[:], self._previews[:]
            if not events:
                return
            values = {
                "stages": [dict(stage) for stage in self._stages],
                "stage": self._stage,
                "progress": self._progress,
                "eta_seconds": self._eta(),
                "warnings": self._warnings[:],
            }
        kept = self._keep(previews)
        with self._sessions.begin() as session:
            mine = service.record(session, self._job_id, self._attempt, events, worker=self._worker, **values)
            if mine:
                for preview in kept:
                    session.merge(preview)
        with self._lock:
            self._pending = [event for event in self._pending if not any(event is sent for sent in events)]
            self._previews = [preview for preview in self._previews if preview not in previews]
        if not mine:
            self._lease.give_up()

    def _eta(self) -> float | None:
        elapsed = time.monotonic() - self._started
        return overall_eta(self._stages, self._stage_eta, elapsed, self._begun_at)
