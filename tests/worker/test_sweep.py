import os
import time
from datetime import timedelta

from api.db import queries
from api.db.models import Job, Upload, now
from api.jobs import service as jobs
from api.jobs.queue import WakeQueue
from tests.harness import Harness
from worker.sweep import sweep


class Ledger(WakeQueue):
    """A doorbell that writes down who rang, with `left` messages not taken."""

    def __init__(self, left: int | None = 0) -> None:
        super().__init__()
        self.rung: list[str] = []
        self.left = left

    def announce(self, job_id: str) -> bool:
        self.rung.append(job_id)
        return True

    def waiting(self) -> int | None:  # type: ignore[override]
        return self.left


def round_of(service: Harness, ledger: Ledger) -> None:
    sweep(service.sessions, ledger, service.runner.files, service.settings)


def test_a_lost_worker_s_job_goes_back(service: Harness) -> None:
    job = service.submit()
    with service.sessions.begin() as session:
        jobs.claim(session, job["id"], "gone", 60)
    round_of(service, Ledger())
    assert service.job(job["id"])["state"] == "running"  # its lease still holds
    with service.sessions.begin() as session:
        session.get_one(Job, job["id"]).lease_expires_at = now() - timedelta(seconds=10)
    ledger = Ledger()
    round_of(service, ledger)
    back = service.job(job["id"])
    assert (back["state"], back["attempt"]) == ("queued", 2)
    assert "gone" in back["warnings"][0]
    assert job["id"] in ledger.rung


def test_a_lost_worker_s_cancelled_job_ends(service: Harness) -> None:
    job = service.submit()
    with service.sessions.begin() as session:
        jobs.claim(session, job["id"], "gone", 60)
        jobs.request_cancel(session, session.get_one(Job, job["id"]))
        session.get_one(Job, job["id"]).lease_expires_at = now() - timedelta(seconds=10)
    round_of(service, Ledger())
    assert service.job(job["id"])["state"] == "cancelled"


def test_lost_messages_are_sent_again_but_not_piled_up(service: Harness) -> None:
    job = service.submit()
    for left, rung in ((0, [job["id"]]), (1, []), (None, [])):
        ledger = Ledger(left)
        round_of(service, ledger)
        assert ledger.rung == rung


def test_missed_start_deadlines_expire(service: Harness) -> None:
    job = service.submit(start_deadline=0.01)
    time.sleep(0.05)
    round_of(service, Ledger())
    assert service.job(job["id"])["state"] == "expired"


def test_a_deletion_that_broke_off_is_finished(service: Harness) -> None:
    job = service.finished()
    with service.sessions.begin() as session:
        jobs.request_delete(session, session.get_one(Job, job["id"]))
    assert service.http.get(f"/v1/jobs/{job['id']}").status_code == 200
    round_of(service, Ledger())
    assert service.http.get(f"/v1/jobs/{job['id']}").status_code == 410


def test_old_uploads_go_unless_a_job_may_need_them(service: Harness) -> None:
    free, held = service.upload(), service.upload()
    service.submit(upload_id=held)
    part = service.runner.files.uploads / "in-x.part"
    part.write_bytes(b"x")
    os.utime(part, (0, 0))
    with service.sessions.begin() as session:
        for identity in (free, held):
            session.get_one(Upload, identity).expires_at = now() - timedelta(hours=1)
    round_of(service, Ledger())
    assert service.http.get(f"/v1/uploads/{free}").status_code == 404
    assert service.http.get(f"/v1/uploads/{held}").status_code == 200
    assert [path.name for path in service.runner.files.uploads.glob("*")] == [f"{held}.mp4"]
    with service.sessions() as session:
        assert queries.expired_uploads(session) == []
