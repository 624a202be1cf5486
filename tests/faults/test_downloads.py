"""Faults of downloads, from a folder and from a real S3 server: real processes, real connections."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness import Document, job_when
from tests.production import Production, make_production

SIZE = 48_000_000  # more than sockets and servers hold in their buffers
LARGE = "ballast/1.bin"
CONTENT = b"x" * SIZE

pytestmark = pytest.mark.faults


@pytest.fixture(params=["folder", "bucket"])
def fleet(request: pytest.FixtureRequest, postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Production]:
    variables = {"DPDY_DATA": str(tmp_path / "local")}
    if request.param == "bucket":
        variables["DPDY_STORAGE_URL"] = request.getfixturevalue("s3_url")
        variables["DPDY_PUBLISH_SECONDS"] = "0.5"
    production = make_production(postgres_url, redis_url, tmp_path, **variables)
    yield production
    assert production.violations() == []


@contextmanager
def finished(fleet: Production) -> Iterator[tuple[httpx.Client, Document]]:
    """An API with a job that has made a large file."""
    with fleet.api() as http, fleet.worker():
        job = fleet.submit(steps=1, ballast=SIZE)
        yield http, job_when(http, job["id"], "succeeded", seconds=60)


def read(http: httpx.Client, url: str, end: int, **headers: str) -> bytes:
    """The first `end` bytes; then the client goes away."""
    with http.stream("GET", url, headers=headers) as answer:
        assert answer.status_code in (200, 206)
        body = b""
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) >= end:
                break
    return body


@pytest.mark.fault("F29")
def test_a_download_breaks_and_goes_on(fleet: Production) -> None:
    """A download breaks and goes on by Range and If-Range, byte-exact; 10 000 ranges are refused."""
    with finished(fleet) as (http, job):
        url = f"/v1/jobs/{job['id']}/artifacts/{LARGE}"
        tag = http.head(url).headers["ETag"]
        have = read(http, url, SIZE // 3)
        rest = http.get(url, headers={"Range": f"bytes={len(have)}-", "If-Range": tag})
        assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes {len(have)}-{SIZE - 1}/{SIZE}")
        assert tag == f'"{hashlib.sha256(have + rest.content).hexdigest()}"'
        changed = read(http, url, 1, Range="bytes=5-", **{"If-Range": '"of-another-render"'})
        assert len(changed) > 0
        answer = http.get(url, headers={"Range": "bytes=" + ",".join(f"{i}-{i}" for i in range(10_000))})
        assert (answer.status_code, len(answer.content) < 2000) == (416, True)
        assert http.get(url, headers={"Range": f"bytes={SIZE}-"}).headers["Content-Range"] == f"bytes */{SIZE}"
        assert http.get(url, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.fault("F29")
@pytest.mark.fault("F30")
@pytest.mark.parametrize("what", ["file", "zip"])
def test_a_job_is_deleted_while_it_is_downloaded(fleet: Production, what: str) -> None:
    """A job is deleted during a download: what ends well is whole, all else breaks; then 410, nothing left."""
    with finished(fleet) as (http, job):
        url = f"/v1/jobs/{job['id']}/" + {"file": f"artifacts/{LARGE}", "zip": "artifacts.zip"}[what]
        body, broken = b"", False
        try:
            with http.stream("GET", url) as answer:
                for chunk in answer.iter_raw():
                    if not body:
                        gone = httpx.delete(f"{http.base_url}/v1/jobs/{job['id']}", timeout=30)
                        assert gone.status_code == 202
                        assert LARGE in str(gone.json()["receipt"]["files"])
                    body += chunk
        except httpx.TransportError:
            broken = True
        if not broken and what == "file":
            assert body == CONTENT
        elif not broken:
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                assert archive.testzip() is None
                assert archive.read(LARGE) == CONTENT
        answer = http.get(url, headers={"Range": "bytes=9-"})
        assert (answer.status_code, answer.json()["type"]) == (410, "deleted")
