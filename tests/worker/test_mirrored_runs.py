"""Jobs whose files live in a bucket: workers share nothing but it and the database."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.bucket import Bucket
from api.jobs.files import make_files
from api.jobs.queue import WakeQueue
from api.settings import Settings
from tests.harness import Harness, harness, steer
from worker.invariants import check
from worker.runner import Runner
from worker.snapshot import newest_snapshot


@pytest.fixture
def remote(make_settings: Callable[..., Settings], s3_url: str, tmp_path: Path) -> Iterator[Harness]:
    """The service over SQLite and a bucket; its invariants are checked in the end."""
    with harness(make_settings(storage_url=s3_url, scratch=tmp_path / "scratch", publish_seconds=0.05)) as service:
        yield service
        assert check(service.sessions, make_files(service.settings), service.settings) == []


def other(service: Harness, scratch: Path) -> Runner:
    """A worker on another machine."""
    settings = service.settings.model_copy(update={"scratch": scratch})
    return Runner(settings, service.sessions, WakeQueue(), "other-worker")


def bucket(service: Harness) -> Bucket:
    assert service.settings.bucket_url is not None
    return Bucket(service.settings.bucket_url)


def files_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {".probe", ".owner"}


def test_a_whole_job(remote: Harness, tmp_path: Path) -> None:
    job = remote.finished()
    assert job["state"] == "succeeded", job
    assert job["metrics"]["mean"] == {"psnr": 20.0}
    url = f"/v1/jobs/{job['id']}"
    items = remote.http.get(f"{url}/artifacts").json()["items"]
    assert {"renders/orbit.mp4", "config.json", "renders/previews/000000.jpg"} <= {item["path"] for item in items}
    for item in items:
        body = remote.http.get(item["url"]).content
        assert (len(body), hashlib.sha256(body).hexdigest()) == (item["size"], item["sha256"]), item["path"]
    with zipfile.ZipFile(io.BytesIO(remote.http.get(f"{url}/artifacts.zip").content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {item["path"] for item in items}
    part = remote.http.get(f"{url}/artifacts/renders/orbit.mp4", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    page = remote.http.get(f"{url}/logs?limit=2").json()
    rest = remote.http.get(f"{url}/logs?after={page['next_cursor']}").json()
    texts = [line["text"] for line in (*page["items"], *rest["items"])]
    assert (len(page["items"]), "attempt 1 line 0 red" in texts) == (2, True)
    assert texts[-1] == "attempt 1 ended: succeeded"
    assert remote.http.get(f"{url}/logs?after={rest['next_cursor']}").json()["items"] == []
    assert files_below(tmp_path / "scratch") == set()


def test_another_worker_goes_on_from_the_last_checkpoint(remote: Harness, tmp_path: Path) -> None:
    job = remote.submit(steer(steps=4, crash=1))
    assert remote.runner.run(job["id"])
    assert remote.job(job["id"])["state"] == "queued"
    assert files_below(tmp_path / "scratch") == set()
    assert other(remote, tmp_path / "elsewhere").run(job["id"])
    done = remote.job(job["id"])
    assert (done["state"], done["attempt"]) == ("succeeded", 2)
    start = remote.http.get(f"/v1/jobs/{job['id']}/artifacts/starts/2.json").json()
    assert start["first"] == 4
    log = remote.http.get(f"/v1/jobs/{job['id']}/logs").json()["items"]
    assert {line["attempt"] for line in log} == {1, 2}
    left = {found.key.split("/")[2] for found in bucket(remote).objects(f"jobs/{job['id']}/snapshots/")}
    assert left == {"snapshots"}


def test_a_damaged_state_is_not_used(remote: Harness, tmp_path: Path) -> None:
    job = remote.submit(steer(steps=4, crash=1))
    remote.runner.run(job["id"])
    stored = newest_snapshot(bucket(remote), job["id"])["stages/scene.partial.json"]
    bucket(remote).put(stored.key, b'{"step": 3}', stored.sha256)
    assert other(remote, tmp_path / "elsewhere").run(job["id"])
    start = remote.http.get(f"/v1/jobs/{job['id']}/artifacts/starts/2.json").json()
    assert start["first"] == 0
    texts = [line["text"] for line in remote.http.get(f"/v1/jobs/{job['id']}/logs").json()["items"]]
    assert any("is damaged, it begins anew" in text for text in texts)


def test_another_view_is_rendered_by_another_worker(remote: Harness, tmp_path: Path) -> None:
    parent = remote.finished()
    child = remote.http.post(f"/v1/jobs/{parent['id']}/renders", json={"path": "orbit"}).json()
    assert other(remote, tmp_path / "elsewhere").run(child["id"])
    assert remote.job(child["id"])["state"] == "succeeded"
    assert remote.http.get(f"/v1/jobs/{child['id']}/artifacts/renders/orbit.mp4").content == b"video"
    assert files_below(tmp_path / "elsewhere") == set()


def test_a_deletion_leaves_no_object(remote: Harness) -> None:
    job = remote.finished()
    names = {item["path"] for item in remote.http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]}
    receipt = remote.http.delete(f"/v1/jobs/{job['id']}").json()["receipt"]
    assert {f"run/{name}" for name in names} <= {entry["path"] for entry in receipt["files"]}
    assert receipt["bytes"] == sum(entry["size"] for entry in receipt["files"]) > 0
    assert list(bucket(remote).objects(f"jobs/{job['id']}/")) == []
    assert remote.http.get(f"/v1/jobs/{job['id']}/artifacts/config.json").status_code == 410
    assert remote.http.delete(f"/v1/uploads/{job['upload_id']}").status_code == 204
    assert list(bucket(remote).objects("")) == []


def test_no_orphan_object_is_found_when_planted(remote: Harness) -> None:
    place, files = bucket(remote), make_files(remote.settings)
    place.put("jobs/job-nobody/files/000001/aa", b"x", "")
    found = check(remote.sessions, files, remote.settings)
    assert {violation.rule for violation in found} == {"no_orphan_object"}
    place.remove(["jobs/job-nobody/files/000001/aa"])


def test_a_lost_object_is_gone_and_an_invariant_broken(remote: Harness) -> None:
    job = remote.finished()
    key = newest_snapshot(bucket(remote), job["id"])["renders/orbit.mp4"].key
    data = b"".join(bucket(remote).read(key, 0, 102400))
    bucket(remote).remove([key])
    answer = remote.http.get(f"/v1/jobs/{job['id']}/artifacts/renders/orbit.mp4")
    assert (answer.status_code, answer.json()["type"]) == (410, "gone")
    found = check(remote.sessions, make_files(remote.settings), remote.settings)
    assert {violation.rule for violation in found} == {"whole_results"}
    bucket(remote).put(key, data, hashlib.sha256(data).hexdigest())


def test_a_bucket_that_is_away_keeps_jobs_waiting(remote: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    job = remote.submit()
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with harness(remote.settings) as cut_off:
            assert not cut_off.runner.run(job["id"])  # unfit
            assert cut_off.http.get("/readyz").json()["checks"]["storage"] != "ok"
            answer = cut_off.http.post("/v1/uploads?filename=a.mp4", content=b"video")
            assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert remote.job(job["id"])["state"] == "queued"
    assert remote.runner.run(job["id"])
    assert json.loads(json.dumps(remote.job(job["id"])))["state"] == "succeeded"
