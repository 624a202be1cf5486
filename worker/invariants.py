"""What must be true of a service after any fault, checked from the outside: rows, files and processes.

Each rule is a generator of what breaks it. `check` is exact while nothing moves; during a run a rule can see a moment
between two commits, so look twice. It reads everything, hashes included: for tests and drills, not for monitoring.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db import queries
from api.db.models import JOB_STATES, Delivery, Job, JobEvent, Upload, Webhook
from api.db.session import Sessions
from api.jobs import faults, states
from api.jobs.files import Files, Stored
from api.settings import Settings
from api.webhooks import outbox
from dpdy_core.rundir import RunDir, read_json

OUTCOMES = {*states.TERMINAL, faults.YIELDED, *faults.ALL}


@dataclass(frozen=True)
class Violation:
    """A broken rule, by name; `subject` is the job, upload, file or process."""

    rule: str
    subject: str
    detail: str


Finding = tuple[str, str]  # subject and detail
Rule = Callable[[Session, Files, Settings], Iterator[Finding]]


def check(sessions: Sessions, files: Files, settings: Settings, rules: Sequence[Rule] | None = None) -> list[Violation]:
    """All violations, rule by rule; an empty list is the only good one. Of a tenant's sessions: with `ROWS` only."""
    with sessions() as session:
        return [
            Violation(rule.__name__, subject, detail)
            for rule in (RULES if rules is None else rules)
            for subject, detail in rule(session, files, settings)
        ]


def legal_state(session: Session, _files: Files, _settings: Settings) -> Iterator[Finding]:
    """Every job is in one legal state, and its columns agree with it."""
    for job in session.scalars(select(Job)):
        if job.state not in JOB_STATES:
            yield job.id, f"there is no state {job.state!r}"
        if (job.state in states.LIVE) != (job.owner is not None and job.lease_expires_at is not None):
            yield job.id, f"{job.state} with owner {job.owner} and a lease until {job.lease_expires_at}"
        if (job.state in states.TERMINAL) != (job.finished_at is not None):
            yield job.id, f"{job.state} with finished_at {job.finished_at}"
        if job.state == states.FAILED and not job.problem:
            yield job.id, "failed without a problem"


def event_log(session: Session, _files: Files, _settings: Settings) -> Iterator[Finding]:
    """A job's events are numbered 1 to its version and walk along legal moves to its state."""
    for job, events in _logs(session):
        numbers = [event.number for event in events]
        if numbers != list(range(1, job.version + 1)):
            yield job.id, f"version {job.version}, but events {numbers[:3]}...{numbers[-3:]}"
        walk = [event.data["state"] for event in events]
        for before, after in pairwise(walk):
            if before != after and after not in states.MOVES.get(before, ()):
                yield job.id, f"moved from {before} to {after}"
        if walk and (walk[0] != states.QUEUED or walk[-1] != job.state):
            yield job.id, f"{job.state}, but its events go from {walk[0]} to {walk[-1]}"


def one_completion(session: Session, _files: Files, _settings: Settings) -> Iterator[Finding]:
    """An attempt ends a job at most once: its terminal event's number is the one id that receivers see."""
    for job, events in _logs(session):
        ends = Counter(e.attempt for e in events if e.kind == "state" and e.data["state"] in states.TERMINAL)
        for attempt, times in ends.items():
            if times > 1:
                yield job.id, f"attempt {attempt} ended the job {times} times"
        if job.state in states.TERMINAL and not ends[job.attempt]:
            yield job.id, f"{job.state}, but attempt {job.attempt} has no terminal event"


def one_message(session: Session, _files: Files, settings: Settings) -> Iterator[Finding]:
    """Each event that a receiver wants has one message, whose id is the event's, and no message is without its event.

    So a receiver sees one completion id for an attempt. Tries stay within their limit, and the last one says the state.
    """
    for webhook, job in session.execute(select(Webhook, Job).join(Job, Job.id == Webhook.job_id)):
        wanted = {
            event.number: event
            for event in session.scalars(select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.kind == "state"))
            if outbox.EVENTS.get(event.data["state"]) in webhook.events
        }
        messages = list(session.scalars(select(Delivery).where(Delivery.job_id == job.id)))
        numbers = Counter(message.number for message in messages if message.number is not None)
        for number in {*numbers, *wanted}:
            if numbers[number] != (number in wanted):
                yield job.id, f"event {number} has {numbers[number]} messages"
        for message in messages:
            if message.number is not None and message.id != f"{job.id}-{message.number}":
                yield message.id, f"is the message of event {message.number} of {job.id}"
            if message.tries - message.tries_before > settings.webhook_tries:
                yield message.id, f"{message.tries - message.tries_before} tries, the limit is {settings.webhook_tries}"
            last = message.log[-1]["status"] if message.log else None
            if message.state == "delivered" and not (last and 200 <= last < 300):
                yield message.id, f"delivered, but the last answer was {last}"


def monotone_progress(session: Session, _files: Files, _settings: Settings) -> Iterator[Finding]:
    """Progress never goes back within an attempt, and attempts never go back."""
    for job, events in _logs(session):
        for before, after in pairwise(events):
            if after.attempt < before.attempt:
                yield job.id, f"event {after.number} is of attempt {after.attempt} after {before.attempt}"
            elif after.attempt == before.attempt and after.data["progress"] < before.data["progress"]:
                yield job.id, f"event {after.number} went from {before.data['progress']} to {after.data['progress']}"


def one_live_attempt(session: Session, _files: Files, _settings: Settings) -> Iterator[Finding]:
    """A running job has one attempt that has not ended, its owner's; no other job has one. Attempts do not overlap."""
    for job in session.scalars(select(Job)):
        attempts = queries.attempts(session, job.id)
        live = [(attempt.number, attempt.worker) for attempt in attempts if attempt.ended_at is None]
        expected = [(job.attempt, job.owner)] if job.state in states.LIVE else []
        if live != expected:
            yield job.id, f"{job.state} in attempt {job.attempt} of {job.owner}, but live attempts are {live}"
        for before, after in pairwise(attempts):
            if before.ended_at and before.ended_at > after.started_at:
                yield job.id, f"attempt {after.number} began before {before.number} had ended"
    owners = Counter(session.scalars(select(Job.owner).where(Job.state.in_(states.LIVE))))
    for owner, times in owners.items():
        if times > 1:
            yield str(owner), f"one worker holds {times} jobs"


def attempts_within_limits(session: Session, _files: Files, settings: Settings) -> Iterator[Finding]:
    """Outcomes are known, none came more often than its limit, and a job that succeeded did so in its last attempt."""
    for job in session.scalars(select(Job)):
        attempts = queries.attempts(session, job.id)
        ended = [attempt for attempt in attempts if attempt.ended_at is not None]
        for attempt in ended:
            if attempt.outcome not in OUTCOMES:
                yield job.id, f"attempt {attempt.number} ended as {attempt.outcome!r}"
        counts = Counter(attempt.outcome for attempt in ended if attempt.number >= job.first_attempt)
        for name, fault in faults.ALL.items():
            if counts[name] > fault.limit(settings):
                yield job.id, f"{counts[name]} attempts ended as {name}, the limit is {fault.limit(settings)}"
        succeeded = [attempt.number for attempt in ended if attempt.outcome == states.SUCCEEDED]
        if succeeded != ([job.attempt] if job.state == states.SUCCEEDED else []):
            yield job.id, f"{job.state} in attempt {job.attempt}, but attempts {succeeded} succeeded"
        if any(attempt.number > job.attempt for attempt in attempts):
            yield job.id, f"an attempt beyond {job.attempt}"


def whole_results(session: Session, files: Files, _settings: Settings) -> Iterator[Finding]:
    """The files of a job that succeeded are there, with the size and hash of its rows and of its manifest."""
    done = select(Job).where(Job.state == states.SUCCEEDED, Job.deleted_at.is_(None))
    for job in session.scalars(done):
        artifacts = queries.artifacts(session, job.id)
        rows = {a.path: (a.size, a.sha256) for a in artifacts}
        if not rows:
            yield job.id, "succeeded without an artifact"
        for row in artifacts:
            stored = files.artifact(row)
            if stored is None:
                yield job.id, f"{row.path} is missing"
            elif stored.size != row.size or _digest(stored) != row.sha256:
                yield job.id, f"{row.path} is not what its row says"
        if files.bucket:  # there the manifest is a file like all others
            continue
        manifest = RunDir(files.run(job.id)).manifest_file
        listed = (
            {e["path"]: (e["size"], e["sha256"]) for e in read_json(manifest)["files"]} if manifest.exists() else {}
        )
        if listed != rows:
            differing = sorted({path for path, _ in listed.items() ^ rows.items()})
            yield job.id, f"manifest and rows differ in {differing[:5]}"


def whole_uploads(session: Session, files: Files, _settings: Settings) -> Iterator[Finding]:
    """An upload's file is there with its size and hash, until it is deleted; of an unfinished one, a part."""
    for upload in session.scalars(select(Upload)):
        stored, part = files.stored_upload(upload), _length(files.part(upload.id))
        if upload.deleted_at:
            if stored is not None or part is not None:
                yield upload.id, "deleted, but its file is there"
        elif upload.state == "receiving":
            if (part is None and files.bucket is None) or (part or 0) > upload.size:
                yield upload.id, "its part is missing or too long"
        elif part is not None:
            if upload.state != "checking" or part != upload.size:
                yield upload.id, "its part is not what its row says"
        elif stored is None:
            if files.bucket is None or upload.state != "checking":  # else its part is on another machine
                yield upload.id, "its file is missing"
        elif stored.size != upload.size or _digest(stored) != upload.sha256:
            yield upload.id, "its file is not what its row says"


def no_orphan_file(session: Session, files: Files, _settings: Settings) -> Iterator[Finding]:
    """No folder without a job, no file without an upload, nothing half-written where nothing runs."""
    jobs = {job.id: job for job in session.scalars(select(Job))}
    for folder in _entries(files.root / "jobs"):
        job = jobs.get(folder.name)
        if job is None or job.deleted_at:
            yield folder.name, "a folder without a job"
        elif job.state == states.SUCCEEDED:
            for path in folder.rglob(".*partial*"):
                yield folder.name, f"{path.relative_to(folder)} was left half-written"
    rows = list(session.scalars(select(Upload)))
    uploads = {files.upload(row).name for row in rows} | {files.part(row.id).name for row in rows}
    for file in _entries(files.uploads):
        if file.name not in uploads:
            yield file.name, "a file without an upload"
    for path in files.root.glob(".check.*"):
        yield path.name, "a temporary file that nobody uses"


def no_orphan_object(session: Session, files: Files, _settings: Settings) -> Iterator[Finding]:
    """In the bucket: no object without a job or upload, no multipart upload begun and left."""
    if files.bucket is None:
        return
    jobs = set(session.scalars(select(Job.id).where(Job.deleted_at.is_(None))))
    uploads = {files.upload(row).name for row in session.scalars(select(Upload).where(Upload.deleted_at.is_(None)))}
    for found in files.bucket.objects(""):
        folder, name = found.key.split("/")[:2]
        if name not in {"jobs": jobs, "uploads": uploads}.get(folder, ()):
            yield found.key, "an object without a job or upload"
    for key, _ in files.bucket.unfinished(""):
        yield key, "a multipart upload that was begun and left"


def no_orphan_process(session: Session, files: Files, _settings: Settings) -> Iterator[Finding]:
    """No process works in the folder of a job that does not run (Linux; this machine)."""
    live = set(session.scalars(select(Job.id).where(Job.state.in_(states.LIVE))))
    root = re.escape(str(files.root.parent)) + r"/[^/\0]+" if files.bucket else re.escape(str(files.root))
    folder = re.compile(root + r"/jobs/([^/\0]+)/")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):  # it ended while we looked
            continue
        found = folder.search(arguments)
        if found and found[1] not in live and state != "Z":
            yield found[1], f"process {process.name} works in its folder"


def _logs(session: Session) -> Iterator[tuple[Job, list[JobEvent]]]:
    for job in session.scalars(select(Job)):
        wanted = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.number)
        yield job, list(session.scalars(wanted))


def _length(file: Path) -> int | None:
    return file.stat().st_size if file.exists() else None


def _digest(stored: Stored) -> str:
    digest = hashlib.sha256()
    for chunk in stored.read(0, stored.size):
        digest.update(chunk)
    return digest.hexdigest()


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


ROWS: tuple[Rule, ...] = (  # what begins with rows: these can be asked of a tenant's alone
    legal_state,
    event_log,
    one_completion,
    one_message,
    monotone_progress,
    one_live_attempt,
    attempts_within_limits,
    whole_results,
    whole_uploads,
)
RULES: tuple[Rule, ...] = (*ROWS, no_orphan_file, no_orphan_object, no_orphan_process)
