"""Every MUST of tus 1.0 with raw requests."""

import base64
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from api.db.models import Upload, now
from api.settings import Settings
from tests.harness import Harness, bearer, harness, lasting_violations, make_key, steer
from tests.servers import wait_for
from worker.garbage import collect

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = {"Content-Type": "application/offset+octet-stream"}
BODY = b"0123456789" * 1000


def encode(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def begin(service: Harness, size: int = len(BODY), metadata: str | None = None, **options: Any) -> httpx.Response:
    headers = TUS | {"Upload-Length": str(size), "Upload-Metadata": metadata or f"filename {encode('a.mp4')}"}
    return service.http.post("/v1/uploads/tus", headers=headers | options.pop("headers", {}), **options)


def begun(service: Harness, size: int = len(BODY), metadata: str | None = None) -> str:
    answer = begin(service, size, metadata)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def patch(service: Harness, url: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    return service.http.patch(url, headers=TUS | CHUNK | {"Upload-Offset": str(offset)} | headers, content=content)


def offset(service: Harness, url: str) -> int:
    answer = service.http.head(url, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def shown(service: Harness, url: str) -> dict[str, Any]:
    document: dict[str, Any] = service.http.get(f"/v1/uploads/{url.rpartition('/')[2]}").json()
    return document


def kind(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    return answer.status_code, answer.json()["type"]


@pytest.fixture
def tus(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(max_upload_bytes=100_000)) as service:
        yield service
        assert lasting_violations(service) == []


def test_options_tells_what_the_server_speaks(tus: Harness) -> None:
    answer = tus.http.options("/v1/uploads/tus")  # of all requests only this one needs no version
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Max-Size"] == "100000"
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,checksum,expiration,termination"
    assert answer.headers["Tus-Checksum-Algorithm"].split(",")[0] == "sha1"
    info = tus.http.get("/v1/info").json()
    assert info["resumable_uploads"]["url"] == "/v1/uploads/tus"
    assert info["limits"]["max_upload_bytes"] == 100_000
    assert info["limits"]["upload_part_hours"] == 24


def test_a_file_in_three_requests(tus: Harness) -> None:
    made = begin(tus)
    url = made.headers["Location"]
    assert parsedate_to_datetime(made.headers["Upload-Expires"]) > now()
    fresh = tus.http.head(url, headers=TUS)
    assert fresh.headers["Cache-Control"] == "no-store"
    assert (fresh.headers["Upload-Offset"], fresh.headers["Upload-Length"]) == ("0", str(len(BODY)))
    assert fresh.headers["Upload-Metadata"] == f"filename {encode('a.mp4')}"
    assert fresh.headers["Tus-Resumable"] == "1.0.0"
    assert (shown(tus, url)["state"], shown(tus, url)["sha256"]) == ("receiving", None)
    for start, stop in ((0, 1), (1, 7000), (7000, len(BODY))):
        answer = patch(tus, url, start, BODY[start:stop])
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Upload-Offset"] == str(stop)
        assert parsedate_to_datetime(answer.headers["Upload-Expires"]) > now()
    ready = wait_for(lambda: (u := shown(tus, url))["state"] == "ready" and u)
    assert (ready["sha256"], ready["size"]) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
    assert (ready["filename"], ready["media_type"]) == ("a.mp4", "video/mp4")
    assert offset(tus, url) == len(BODY)
    assert patch(tus, url, len(BODY), b"").status_code == 204  # of a client that missed the last answer
    assert kind(patch(tus, url, 0, BODY)) == (409, "offset-mismatch")
    assert tus.submit(upload_id=ready["id"])["upload_id"] == ready["id"]


@pytest.mark.parametrize("version", [None, "0.2.2", "2.0.0"])
@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_another_version_is_refused_and_nothing_done(tus: Harness, method: str, version: str | None) -> None:
    url = begun(tus)
    headers = CHUNK | {"Upload-Offset": "0", "Upload-Length": "5"} | ({"Tus-Resumable": version} if version else {})
    answer = tus.http.request(method, "/v1/uploads/tus" if method == "POST" else url, headers=headers, content=b"x")
    assert answer.status_code == 412
    assert (answer.headers["Tus-Version"], answer.headers["Tus-Resumable"]) == ("1.0.0", "1.0.0")
    assert offset(tus, url) == 0
    assert len(list(tus.runner.files.uploads.iterdir())) == 1


def test_the_method_may_be_overridden(tus: Harness) -> None:
    url = begun(tus)
    headers = TUS | CHUNK | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert tus.http.post(url, headers=headers, content=BODY[:10]).headers["Upload-Offset"] == "10"
    assert tus.http.post(url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert tus.http.head(url, headers=TUS).status_code == 410


@pytest.mark.parametrize(
    ("headers", "status", "type"),
    [
        ({"Upload-Length": "100001"}, 413, "upload-too-large"),
        ({"Upload-Length": "0"}, 422, "upload-empty"),
        ({"Upload-Length": "-1"}, 400, "bad-header"),
        ({"Upload-Length": "9" * 30}, 400, "bad-header"),
        ({"Upload-Metadata": "filename ???"}, 400, "bad-header"),
        ({"Upload-Metadata": f"a {encode('1')},a {encode('2')}"}, 400, "bad-header"),
        ({"Upload-Metadata": f"filename {encode('..')}"}, 422, "invalid-request"),
        ({"Upload-Metadata": f"sha256 {encode('12')}"}, 422, "invalid-request"),
    ],
)
def test_creations_that_are_refused(tus: Harness, headers: dict[str, str], status: int, type: str) -> None:
    assert kind(begin(tus, headers=headers)) == (status, type)
    assert list(tus.runner.files.uploads.glob("*")) == []


def test_a_length_must_be_given(tus: Harness) -> None:
    assert kind(tus.http.post("/v1/uploads/tus", headers=TUS)) == (400, "bad-header")
    assert kind(tus.http.post("/v1/uploads/tus", headers=TUS | {"Upload-Defer-Length": "1"})) == (400, "bad-header")


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        (f"filename {encode('../film é.MOV')},empty", "film é.MOV"),
        (f"name {encode('b.zip')}", "b.zip"),
        ("x", "upload"),
    ],
)
def test_names_of_files(tus: Harness, metadata: str, name: str) -> None:
    url = begun(tus, metadata=metadata)
    assert shown(tus, url)["filename"] == name
    assert tus.http.head(url, headers=TUS).headers["Upload-Metadata"] == metadata


def test_the_first_bytes_may_come_with_the_creation(tus: Harness) -> None:
    answer = begin(tus, headers=CHUNK, content=BODY[:4000])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "4000")
    assert patch(tus, answer.headers["Location"], 4000, BODY[4000:]).status_code == 204
    wait_for(lambda: shown(tus, answer.headers["Location"])["state"] == "ready")


def test_patches_that_are_refused(tus: Harness) -> None:
    url = begun(tus)
    assert patch(tus, url, 0, BODY[:100]).status_code == 204
    conflict = patch(tus, url, 50, BODY[50:])
    assert (*kind(conflict), conflict.headers["Upload-Offset"]) == (409, "offset-mismatch", "100")
    assert kind(patch(tus, url, 101, BODY[101:])) == (409, "offset-mismatch")
    assert kind(patch(tus, url, 100, b"x", **{"Content-Type": "application/octet-stream"}))[0] == 415
    assert kind(patch(tus, url, 100, b"x", **{"Upload-Offset": "many"})) == (400, "bad-header")
    assert kind(patch(tus, url, 100, BODY)) == (413, "upload-too-long")
    assert kind(patch(tus, url, 100, iter([BODY[100:], b"x"]))) == (413, "upload-too-long")
    assert offset(tus, url) == 100
    unknown = "/v1/uploads/tus/upl-unknown"
    assert kind(patch(tus, unknown, 0, b"x"))[0] == 404
    head = tus.http.head(unknown, headers=TUS)
    assert head.status_code == 404
    assert "Upload-Offset" not in head.headers


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_checksums(tus: Harness, algorithm: str) -> None:
    url = begun(tus)

    def checksum(data: bytes) -> dict[str, str]:
        return {"Upload-Checksum": f"{algorithm} {encode(hashlib.new(algorithm, data).digest())}"}

    assert patch(tus, url, 0, BODY[:100], **checksum(BODY[:100])).status_code == 204
    assert kind(patch(tus, url, 100, BODY[100:200], **checksum(BODY[100:201]))) == (460, "checksum-mismatch")
    assert offset(tus, url) == 100
    assert kind(patch(tus, url, 100, b"x", **{"Upload-Checksum": "crc32 AAAA"})) == (400, "bad-header")
    assert kind(patch(tus, url, 100, b"x", **{"Upload-Checksum": f"{algorithm} AAAA"})) == (400, "bad-header")
    assert patch(tus, url, 100, BODY[100:], **checksum(BODY[100:])).status_code == 204
    wait_for(lambda: shown(tus, url)["state"] == "ready")


def test_a_file_that_is_not_the_announced_one_is_rejected(tus: Harness) -> None:
    announced = f"filename {encode('a.mp4')},sha256 {encode(hashlib.sha256(BODY).hexdigest())}"
    good, bad = begun(tus, metadata=announced), begun(tus, metadata=announced)
    assert patch(tus, good, 0, BODY).status_code == 204
    assert patch(tus, bad, 0, BODY[:-1] + b"x").status_code == 204
    wait_for(lambda: shown(tus, good)["state"] == "ready")
    rejected = wait_for(lambda: (u := shown(tus, bad))["state"] == "rejected" and u)
    assert rejected["problem"]["type"] == "upload-damaged"
    assert tus.http.post("/v1/jobs", json={"upload_id": rejected["id"], "preset": "smoke"}).status_code == 422


def test_one_request_at_a_time(tus: Harness) -> None:
    url = begun(tus)
    with tus.runner.files.part(url.rpartition("/")[2]).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another request holds it, in whatever process
        refused = patch(tus, url, 0, b"y" * 10)
        assert kind(refused) == (423, "upload-locked")
        assert refused.headers["Retry-After"]
    assert patch(tus, url, 0, BODY).status_code == 204
    wait_for(lambda: shown(tus, url)["sha256"] == hashlib.sha256(BODY).hexdigest())


def test_time_runs_out_unless_somebody_goes_on(tus: Harness) -> None:
    url = begun(tus)
    identity = url.rpartition("/")[2]

    def expire() -> None:
        with tus.sessions.begin() as session:
            session.get_one(Upload, identity).expires_at = now() - timedelta(seconds=1)

    with tus.sessions.begin() as session:
        session.get_one(Upload, identity).expires_at = now() + timedelta(seconds=60)
    before = now() + timedelta(hours=23)
    assert parsedate_to_datetime(patch(tus, url, 0, b"x").headers["Upload-Expires"]) > before
    expire()
    for answer in (patch(tus, url, 1, b"x"), tus.http.head(url, headers=TUS), tus.http.delete(url, headers=TUS)):
        assert answer.status_code == 410


def test_termination(tus: Harness) -> None:
    url = begun(tus)
    patch(tus, url, 0, BODY[:10])
    assert tus.http.delete(url, headers=TUS).status_code == 204
    assert list(tus.runner.files.uploads.glob("*")) == []
    for answer in (patch(tus, url, 10, BODY[10:]), tus.http.head(url, headers=TUS), tus.http.delete(url, headers=TUS)):
        assert answer.status_code == 410
    assert tus.http.delete("/v1/uploads/tus/none", headers=TUS).status_code == 404
    used = begun(tus)
    patch(tus, used, 0, BODY)
    wait_for(lambda: shown(tus, used)["state"] == "ready")
    tus.submit(steer(), upload_id=used.rpartition("/")[2])
    assert kind(tus.http.delete(used, headers=TUS)) == (409, "upload-in-use")


def test_unfinished_uploads_make_no_jobs_and_may_be_deleted_by_id(tus: Harness) -> None:
    identity = begun(tus).rpartition("/")[2]
    refused = tus.http.post("/v1/jobs", json={"upload_id": identity, "preset": "smoke"})
    assert (refused.status_code, refused.json()["type"]) == (409, "upload-not-ready")
    assert tus.http.delete(f"/v1/uploads/{identity}").status_code == 204
    assert list(tus.runner.files.uploads.glob("*")) == []


def test_collecting_waste_leaves_what_may_go_on(tus: Harness) -> None:
    url, dead = begun(tus), begun(tus)
    files = tus.runner.files
    for one in (url, dead):
        os.utime(files.part(one.rpartition("/")[2]), (0, 0))
    with tus.sessions.begin() as session:
        session.get_one(Upload, dead.rpartition("/")[2]).expires_at = now() - timedelta(seconds=1)
    assert [waste.name for waste in collect(tus.sessions, files, tus.settings, dry_run=False)] == [
        dead.rpartition("/")[2]
    ]
    assert patch(tus, url, 0, BODY).status_code == 204


def test_an_overridden_method_needs_its_own_scope(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(auth="on")) as guarded:
        writer, reader = (bearer(make_key(guarded.sessions, "ours", scope)) for scope in ("write", "read"))
        url = begin(guarded, headers=writer).headers["Location"]
        disguised = TUS | reader | {"X-HTTP-Method-Override": "DELETE"}
        assert kind(guarded.http.get(url, headers=disguised)) == (403, "missing-scope")
        assert guarded.http.head(url, headers=TUS | reader).status_code == 200
        assert kind(guarded.http.post("/v1/uploads/tus", headers=TUS)) == (401, "unauthorised")
