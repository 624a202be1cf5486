import hashlib
from collections.abc import Callable, Iterator

import pytest

from api.settings import Settings
from tests.harness import Harness, harness, steer
from tests.servers import wait_for


def parts(service: Harness) -> list[str]:
    return [path.name for path in service.runner.files.uploads.glob("*")]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_upload_is_streamed_hashed_and_checked(service: Harness, method: str) -> None:
    body = b"0123456789" * 300_000

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 70_000):
            yield body[start : start + 70_000]

    answer = service.http.request(method, "/v1/uploads?filename=my%20film.MP4", content=chunks())
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/uploads/{made['id']}"
    assert (made["filename"], made["size"], made["media_type"]) == ("my film.MP4", len(body), "video/mp4")
    assert made["sha256"] == hashlib.sha256(body).hexdigest()
    assert made["state"] == "checking"
    ready = wait_for(lambda: (u := service.http.get(answer.headers["Location"]).json())["state"] == "ready" and u)
    assert ready["report"] == {"frames": 24, "size": [64, 48], "warnings": []}
    assert ready["problem"] is None
    assert (service.runner.files.uploads / f"{made['id']}.mp4").read_bytes() == body


def test_rejected_upload_says_why_and_makes_no_job(service: Harness) -> None:
    made = service.http.post("/v1/uploads?filename=x.mp4", content=b"bad").json()
    url = f"/v1/uploads/{made['id']}"
    rejected = wait_for(lambda: (u := service.http.get(url).json())["state"] == "rejected" and u)
    assert rejected["problem"]["detail"] == "not a video"
    answer = service.http.post("/v1/jobs", json={"upload_id": made["id"], "preset": "smoke"})
    assert answer.status_code == 422
    assert (answer.json()["type"], answer.json()["remedy"]) == ("bad-input", "send one")


def test_decoder_crash_rejects_the_file_and_not_the_service(service: Harness) -> None:
    made = service.http.post("/v1/uploads?filename=x.mp4", content=b"crash").json()
    wait_for(lambda: service.http.get(f"/v1/uploads/{made['id']}").json()["state"] == "rejected")
    problem = service.http.get(f"/v1/uploads/{made['id']}").json()["problem"]
    assert problem["type"] == "inspect-crashed"
    assert service.upload()


def test_check_has_a_time_limit(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(inspect_seconds=1.0)) as service:
        made = service.http.post("/v1/uploads?filename=x.mp4", content=b"hang").json()
        rejected = wait_for(lambda: (u := service.http.get(f"/v1/uploads/{made['id']}").json())["problem"] and u)
        assert rejected["problem"]["type"] == "inspect-timeout"


def test_check_is_taken_up_again_after_a_restart(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    with harness(settings) as first:
        made = first.http.post("/v1/uploads?filename=x.mp4", content=b"hang").json()
        wait_for(lambda: first.http.app.state.service.checker._child)
        first.runner.files.uploads.joinpath(f"{made['id']}.mp4").write_bytes(b"video")
    with harness(settings) as second:
        wait_for(lambda: second.http.get(f"/v1/uploads/{made['id']}").json()["state"] == "ready")


def test_limits_leave_nothing_behind(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(max_upload_bytes=1000)) as service:
        announced = service.http.post("/v1/uploads?filename=x.mp4", content=b"x" * 1001)
        unannounced = service.http.post("/v1/uploads?filename=x.mp4", content=iter([b"x" * 600, b"x" * 600]))
        for answer in (announced, unannounced):
            assert answer.status_code == 413
            assert answer.json()["type"] == "upload-too-large"
        empty = service.http.post("/v1/uploads?filename=x.mp4", content=b"")
        assert (empty.status_code, empty.json()["type"]) == (422, "upload-empty")
        assert parts(service) == []
        assert service.http.post("/v1/uploads?filename=x.mp4", content=b"x" * 1000).status_code == 201


def test_full_disk_is_refused_before_the_first_byte(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(min_free_bytes=2**60)) as service:
        answer = service.http.post("/v1/uploads?filename=x.mp4", content=b"x")
        assert (answer.status_code, answer.json()["type"], answer.json()["retryable"]) == (507, "storage-full", True)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\film.mov", "film.mov"), ("a\x00b\n.mp4", "ab.mp4"), ("-i.mp4", "-i.mp4")],
)
def test_names_are_text_only(service: Harness, given: str, kept: str) -> None:
    made = service.http.post("/v1/uploads", params={"filename": given}, content=b"video").json()
    assert made["filename"] == kept
    assert all(path.parent == service.runner.files.uploads for path in service.runner.files.root.rglob("upl-*"))


@pytest.mark.parametrize("name", ["", "..", "a/", "\x07"])
def test_names_that_are_none_are_refused(service: Harness, name: str) -> None:
    answer = service.http.post("/v1/uploads", params={"filename": name}, content=b"video")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "filename"


def test_forms_are_refused_with_the_remedy(service: Harness) -> None:
    answer = service.http.post("/v1/uploads?filename=x.mp4", files={"file": b"video"})
    assert (answer.status_code, answer.json()["type"]) == (415, "unsupported-media-type")
    assert "curl -T" in answer.json()["remedy"]


def test_delete(service: Harness) -> None:
    identity = service.upload()
    job = service.submit(steer(), upload_id=identity)
    busy = service.http.delete(f"/v1/uploads/{identity}")
    assert (busy.status_code, busy.json()["type"]) == (409, "upload-in-use")
    service.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert service.http.delete(f"/v1/uploads/{identity}").status_code == 204
    assert parts(service) == []
    assert service.http.get(f"/v1/uploads/{identity}").status_code == 404
    assert service.http.post(f"/v1/jobs/{job['id']}/retry").json()["type"] == "upload-gone"
    gone = service.http.post("/v1/jobs", json={"upload_id": identity})
    assert (gone.status_code, gone.json()["type"]) == (422, "upload-not-found")
