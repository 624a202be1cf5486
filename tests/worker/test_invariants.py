"""The checker finds every violation that is planted, by its rule, and nothing where nothing was planted."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.orm import Session

from api.db.models import Attempt, Delivery, Job, JobEvent, Upload, now
from api.db.session import Sessions, make_engine, make_sessions
from api.jobs import service as jobs
from api.jobs.files import Files
from api.settings import Settings
from dpdy_core.rundir import read_json, write_json
from tests.harness import harness, steer
from tests.production import STANDIN
from tests.servers import wait_for
from worker.invariants import RULES, check

Plant = Callable[[Session, str, Path], None]


@dataclass(frozen=True)
class Lived:
    settings: Settings
    sessions: Sessions
    files: Files

    def broken(self) -> set[str]:
        return {violation.rule for violation in check(self.sessions, self.files, self.settings)}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A service that has seen a success after a crash, a failure, a retry, a cancellation, a deletion and a yield."""
    data = tmp_path_factory.mktemp("history")
    settings = Settings(_env_file=None, data=data, engine=STANDIN, min_free_bytes=0)  # type: ignore[call-arg]
    with harness(settings) as service:
        hook = {"url": "https://receiver.example/", "events": ["job.started", "job.succeeded"]}
        done = service.submit(steer(crash=1, steps=3), webhook=hook)
        service.runner.run(done["id"])
        service.runner.run(done["id"])
        service.finished(fail=3)
        retried = service.finished(fail=3)
        service.http.post(f"/v1/jobs/{retried['id']}/retry")
        service.http.post(f"/v1/jobs/{retried['id']}/cancel")
        deleted = service.finished()
        service.http.delete(f"/v1/jobs/{deleted['id']}")
        yielded, running, _ = (service.submit() for _ in range(3))
        for job in (yielded, running):
            with service.sessions.begin() as session:
                jobs.claim(session, job["id"], "w", 60)
            if job is yielded:
                with service.sessions.begin() as session:
                    jobs.give_back(session, job["id"], 1, None, "yielded", settings)
    return settings


@pytest.fixture
def lived(history: Settings, tmp_path: Path) -> Iterator[Lived]:
    """A copy of the history that a test may spoil."""
    shutil.copytree(history.data, tmp_path / "data")
    settings = history.model_copy(update={"data": tmp_path / "data"})
    engine = make_engine(settings.database)
    yield Lived(settings, make_sessions(engine), Files(settings.storage))
    engine.dispose()


def the(session: Session, state: str) -> Job:
    job = session.query(Job).filter_by(state=state, deleted_at=None).order_by(Job.created_at).first()
    assert job is not None
    return job


def set_column(state: str, /, **values: object) -> Plant:
    def plant(session: Session, _id: str, _root: Path) -> None:
        session.execute(update(Job).where(Job.id == the(session, state).id).values(**values))

    return plant


def unknown_state(session: Session, _id: str, _root: Path) -> None:
    session.execute(text("PRAGMA ignore_check_constraints=ON"))
    session.execute(update(Job).where(Job.id == the(session, "queued").id).values(state="lost"))


def lost_event(session: Session, done: str, _root: Path) -> None:
    session.execute(delete(JobEvent).where(JobEvent.job_id == done, JobEvent.number == 2))


def illegal_move(session: Session, _id: str, _root: Path) -> None:
    job = the(session, "failed")
    event = session.get_one(JobEvent, (job.id, 2))
    event.data = event.data | {"state": "expired"}


def second_completion(session: Session, done: str, _root: Path) -> None:
    job = session.get_one(Job, done)
    job.version += 1
    last = session.get_one(JobEvent, (done, job.version - 1))
    session.add(
        JobEvent(job_id=done, number=job.version, time=now(), kind="state", attempt=job.attempt, data=last.data)
    )


def lost_message(session: Session, done: str, _root: Path) -> None:
    session.execute(delete(Delivery).where(Delivery.job_id == done, Delivery.type == "job.succeeded"))


def change_message(**values: object) -> Plant:
    def plant(session: Session, done: str, _root: Path) -> None:
        mine = (Delivery.job_id == done, Delivery.type == "job.succeeded")
        session.execute(update(Delivery).where(*mine).values(**values))

    return plant


def second_message(session: Session, done: str, _root: Path) -> None:
    first = session.query(Delivery).filter_by(job_id=done, type="job.succeeded").one()
    values = {column.name: getattr(first, column.name) for column in Delivery.__table__.columns}
    session.add(Delivery(**values | {"id": f"{first.id}-again"}))


def progress_backwards(session: Session, done: str, _root: Path) -> None:
    job = session.get_one(Job, done)
    event = session.get_one(JobEvent, (done, job.version - 1))
    event.data = event.data | {"progress": 0.0}


def attempt_backwards(session: Session, done: str, _root: Path) -> None:
    session.get_one(JobEvent, (done, session.get_one(Job, done).version - 1)).attempt = 1


def ghost_attempt(session: Session, done: str, _root: Path) -> None:
    session.get_one(Attempt, (done, 2)).ended_at = None


def no_attempt(session: Session, _id: str, _root: Path) -> None:
    session.execute(delete(Attempt).where(Attempt.job_id == the(session, "running").id))


def overlapping(session: Session, done: str, _root: Path) -> None:
    session.get_one(Attempt, (done, 1)).ended_at = now() + timedelta(hours=1)


def greedy_worker(session: Session, _id: str, _root: Path) -> None:
    waiting = [job.id for job in session.query(Job).filter_by(state="queued")]
    for job_id in waiting:
        jobs.claim(session, job_id, "w", 60)


def one_too_many(session: Session, done: str, _root: Path) -> None:
    session.get_one(Job, done).attempt = 5
    for number in (3, 4, 5):
        session.add(Attempt(job_id=done, number=number, worker="w", started_at=now(), ended_at=now()))
    session.flush()
    session.execute(update(Attempt).where(Attempt.job_id == done).values(outcome="attempts-exhausted"))


def unknown_outcome(session: Session, done: str, _root: Path) -> None:
    session.get_one(Attempt, (done, 1)).outcome = "tired"


def success_without_attempt(session: Session, done: str, _root: Path) -> None:
    session.get_one(Attempt, (done, 2)).outcome = "failed"


def changed_result(_session: Session, done: str, root: Path) -> None:
    file = root / "jobs" / done / "run" / "renders" / "orbit.mp4"
    file.write_bytes(b"x" + file.read_bytes()[1:])


def missing_result(_session: Session, done: str, root: Path) -> None:
    (root / "jobs" / done / "run" / "renders" / "orbit.mp4").unlink()


def manifest_of_another(_session: Session, done: str, root: Path) -> None:
    file = root / "jobs" / done / "run" / "manifest.json"
    write_json(file, {"files": read_json(file)["files"][1:]})


def upload_changed(session: Session, _id: str, root: Path) -> None:
    (root / "uploads" / f"{session.query(Upload).first().id}.mp4").write_bytes(b"wideo")  # type: ignore[union-attr]


def upload_lost(session: Session, _id: str, root: Path) -> None:
    (root / "uploads" / f"{session.query(Upload).first().id}.mp4").unlink()  # type: ignore[union-attr]


def upload_undead(session: Session, _id: str, _root: Path) -> None:
    session.query(Upload).first().deleted_at = now()  # type: ignore[union-attr]


def folder_without_job(_session: Session, _id: str, root: Path) -> None:
    (root / "jobs" / "job-ghost").mkdir()


def file_without_upload(_session: Session, _id: str, root: Path) -> None:
    (root / "uploads" / "in-1.part").touch()


def half_written(_session: Session, done: str, root: Path) -> None:
    (root / "jobs" / done / "run" / ".config.partial.json").touch()


def scratch_left(_session: Session, _id: str, root: Path) -> None:
    (root / ".check.1234").mkdir()


@pytest.mark.parametrize(
    ("rule", "plant"),
    [
        ("legal_state", unknown_state),
        ("legal_state", set_column("succeeded", owner="ghost", lease_expires_at=now())),
        ("legal_state", set_column("running", lease_expires_at=None)),
        ("legal_state", set_column("failed", finished_at=None)),
        ("legal_state", set_column("failed", problem=None)),
        ("event_log", lost_event),
        ("event_log", illegal_move),
        ("event_log", set_column("failed", state="cancelled")),
        ("one_completion", second_completion),
        ("one_message", lost_message),
        ("one_message", second_message),
        ("one_message", change_message(number=1)),
        ("one_message", change_message(id="job-other-7")),
        ("one_message", change_message(tries=99)),
        ("one_message", change_message(state="delivered")),
        ("monotone_progress", progress_backwards),
        ("monotone_progress", attempt_backwards),
        ("one_live_attempt", ghost_attempt),
        ("one_live_attempt", no_attempt),
        ("one_live_attempt", set_column("running", owner="other")),
        ("one_live_attempt", overlapping),
        ("one_live_attempt", greedy_worker),
        ("attempts_within_limits", one_too_many),
        ("attempts_within_limits", unknown_outcome),
        ("attempts_within_limits", success_without_attempt),
        ("whole_results", changed_result),
        ("whole_results", missing_result),
        ("whole_results", manifest_of_another),
        ("whole_uploads", upload_changed),
        ("whole_uploads", upload_lost),
        ("whole_uploads", upload_undead),
        ("no_orphan_file", folder_without_job),
        ("no_orphan_file", file_without_upload),
        ("no_orphan_file", half_written),
        ("no_orphan_file", scratch_left),
    ],
)
def test_a_planted_violation_is_found(lived: Lived, rule: str, plant: Plant) -> None:
    assert lived.broken() == set()
    with lived.sessions.begin() as session:
        plant(session, the(session, "succeeded").id, lived.files.root)
    assert rule in lived.broken()


def test_an_orphan_process_is_found(lived: Lived) -> None:
    with lived.sessions() as session:
        folder = lived.files.run(the(session, "succeeded").id)
    command = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = lived.broken()
        process.kill()
    assert found == {"no_orphan_process"}
    wait_for(lambda: lived.broken() == set())


def test_every_rule_has_a_planted_violation() -> None:
    marks = test_a_planted_violation_is_found.pytestmark  # type: ignore[attr-defined]
    elsewhere = {"no_orphan_process", "no_orphan_object"}  # below, and in tests/worker/test_mirrored_runs.py
    planted = {rule for rule, _ in marks[0].args[1]} | elsewhere
    assert planted == {rule.__name__ for rule in RULES}
