import hashlib
import io
import zipfile
from collections.abc import Iterator

import pytest

from api.settings import Settings
from tests.harness import Document, Harness, harness
from tests.production import STANDIN

VIDEO = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Document]]:
    """A service with one finished job, for tests that only read."""
    settings = Settings(_env_file=None, data=tmp_path_factory.mktemp("done"), engine=STANDIN, min_free_bytes=0)  # type: ignore[call-arg]
    with harness(settings) as service:
        yield service, service.finished()


def test_list_is_complete_and_true(done: tuple[Harness, Document]) -> None:
    service, job = done
    items = service.http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]
    paths = {item["path"] for item in items}
    assert {"renders/orbit.mp4", "renders/previews/000000.jpg", "evaluation/metrics.json", "config.json"} <= paths
    for item in items:
        body = service.http.get(item["url"]).content
        assert (len(body), hashlib.sha256(body).hexdigest()) == (item["size"], item["sha256"]), item["path"]


def test_previews_are_listed_while_the_job_runs(service: Harness) -> None:
    job = service.submit({"prior.token": "fail=4"})
    service.runner.run(job["id"])  # ends without a manifest: only what was reported on the way is there
    items = service.http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]
    assert [item["path"] for item in items] == ["renders/previews/000000.jpg"]
    assert service.http.get(items[0]["url"]).content == b"\xff\xd8preview"


@pytest.mark.parametrize(
    ("header", "status", "body"),
    [
        ({"Range": "bytes=0-9"}, 206, VIDEO[:10]),
        ({"Range": "bytes=100000-"}, 206, VIDEO[100000:]),
        ({"Range": "bytes=-5"}, 206, VIDEO[-5:]),
        ({"Range": "bytes=999999-"}, 416, None),
        ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200, VIDEO),
        ({"Range": "bytes=" + ",".join(["0-1"] * 10_000)}, 416, None),
        ({}, 200, VIDEO),
    ],
)
def test_ranges(done: tuple[Harness, Document], header: dict[str, str], status: int, body: bytes | None) -> None:
    service, job = done
    answer = service.http.get(f"/v1/jobs/{job['id']}/artifacts/renders/orbit.mp4", headers=header)
    assert answer.status_code == status
    if body is not None:
        assert answer.content == body


def test_tags_and_disposition(done: tuple[Harness, Document]) -> None:
    service, job = done
    url = f"/v1/jobs/{job['id']}/artifacts/renders/orbit.mp4"
    first = service.http.get(url)
    tag = f'"{hashlib.sha256(VIDEO).hexdigest()}"'
    assert first.headers["ETag"] == tag
    assert first.headers["Content-Disposition"] == 'inline; filename="orbit.mp4"'
    assert "sandbox" in first.headers["Content-Security-Policy"]
    assert service.http.get(url, headers={"If-None-Match": tag}).status_code == 304
    part = service.http.get(url, headers={"Range": "bytes=0-3", "If-Range": tag})
    assert (part.status_code, part.content) == (206, VIDEO[:4])
    assert service.http.get(f"{url}?download=1").headers["Content-Disposition"].startswith("attachment")
    head = service.http.head(url)
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(VIDEO)))


@pytest.mark.parametrize("path", ["../log.jsonl", "..%2Flog.jsonl", "%2Fetc%2Fpasswd", "nothing.mp4", "renders", ""])
def test_only_recorded_files_are_served(done: tuple[Harness, Document], path: str) -> None:
    service, job = done
    answer = service.http.get(f"/v1/jobs/{job['id']}/artifacts/{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


def test_a_link_out_of_the_run_folder_is_not_followed(service: Harness) -> None:
    job = service.finished()
    file = service.runner.files.run(job["id"]) / "renders" / "orbit.mp4"
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts/renders/orbit.mp4").status_code == 410


def test_zip_holds_every_artifact(done: tuple[Harness, Document]) -> None:
    service, job = done
    items = service.http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]
    answer = service.http.get(f"/v1/jobs/{job['id']}/artifacts.zip")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job["id"]}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(item["path"] for item in items)
        assert archive.read("renders/orbit.mp4") == VIDEO
