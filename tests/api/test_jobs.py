import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.settings import Settings
from dpdy_core.config import STAGES
from dpdy_core.rundir import RunDir, read_json
from tests.harness import Harness, harness, steer

CAMERA = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], "fov": 50, "aspect": 1.5}


def test_a_new_job_is_the_contract_s(service: Harness) -> None:
    upload = service.upload()
    body = {"upload_id": upload, "preset": "smoke", "settings": {"scene.steps": 7}, "name": "cat", "tags": ["b", "a"]}
    answer = service.http.post("/v1/jobs", json=body)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert int(answer.headers["Retry-After"]) > 0
    assert [stage["name"] for stage in job["stages"]] == list(STAGES)
    assert {stage["state"] for stage in job["stages"]} == {"pending"}
    assert (job["state"], job["attempt"], job["progress"], job["queue_position"]) == ("queued", 1, 0.0, 1)
    assert (job["name"], job["tags"], job["settings"]) == ("cat", ["a", "b"], {"scene.steps": 7})
    assert service.submit(upload_id=upload)["queue_position"] == 2
    assert all(link.startswith("/v1/") for link in job["links"].values())
    created = datetime.fromisoformat(job["created_at"])
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"preset": "nope"}, "preset"),
        ({"settings": {"scene.steps": "many"}}, "settings.scene.steps"),
        ({"settings": {"scene": {"steps": -1}}}, "settings.scene.steps"),
        ({"settings": {"scene.stepz": 1}}, "settings"),
        ({"settings": {"render.paths": ["/etc/passwd"]}}, "settings.render.paths"),
        ({"settings": {"prior.model": "/etc"}}, "settings.prior.model"),
        ({"settings": {"depth.model": "../secret"}}, "settings.depth.model"),
        ({"settings": {"masks.model": "/etc"}}, "settings.masks.model"),
        ({"settings": {"prior.motion_adapter": "/etc"}}, "settings.prior.motion_adapter"),
        ({"settings": [1]}, "settings"),
        ({"camera_paths": ["spiral"]}, "camera_paths.0.name"),
        ({"camera_paths": []}, "camera_paths"),
        ({"camera_paths": ["orbit", "orbit"]}, "camera_paths"),
        ({"camera_paths": [{"camera_path": []}]}, "camera_paths.0.document.camera_path"),
        ({"camera_paths": [{"camera_path": [CAMERA | {"fov": 0}]}]}, "camera_paths.0.document.camera_path.0.fov"),
        ({"camera_paths": [{"camera_path": [CAMERA], "name": "../x"}]}, "camera_paths.0.document.name"),
        ({"camera_paths": [{"camera_path": [CAMERA], "name": "orbit"}]}, "camera_paths.0.document.name"),
        (
            {"camera_paths": [{"camera_path": [CAMERA, CAMERA | {"render_time": 0.5}]}]},
            "camera_paths.0.document",
        ),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"tags": [""]}, "tags.0"),
        ({"tags": ["t"] * 21}, "tags"),
        ({"webhook": 7}, "webhook"),
        ({"start_deadline": -1}, "start_deadline.seconds"),
        ({"start_deadline": "2001-01-01T00:00:00Z"}, "start_deadline.time"),
        ({"run_deadline": "soon"}, "run_deadline.time"),
        ({"upload": "x"}, "upload"),
    ],
)
def test_what_is_wrong_is_said_before_the_202(service: Harness, change: dict[str, Any], field: str) -> None:
    answer = service.http.post("/v1/jobs", json={"upload_id": "u", "preset": "smoke"} | change)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert service.http.get("/v1/jobs").json()["items"] == []


def test_deep_and_broken_bodies_are_client_errors(service: Harness) -> None:
    deep = '{"upload_id": "u", "settings": ' + '{"a":' * 900 + "1" + "}" * 901
    headers = {"Content-Type": "application/json"}
    for body in (deep, "{", '{"upload_id": "\\ud800"}', "[]", '{"upload_id": "u", "settings": {"\\ud800": 1}}'):
        answer = service.http.post("/v1/jobs", content=body, headers=headers)
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_upload_that_is_still_checked_can_be_tried_again(service: Harness) -> None:
    made = service.http.post("/v1/uploads?filename=x.mp4", content=b"hang").json()
    answer = service.http.post("/v1/jobs", json={"upload_id": made["id"]})
    assert (answer.status_code, answer.json()["type"], answer.json()["retryable"]) == (409, "upload-not-ready", True)


def test_idempotency_key(service: Harness) -> None:
    upload = service.upload()
    headers = {"Idempotency-Key": "k1"}
    body = {"upload_id": upload, "preset": "smoke"}
    invalid = service.http.post("/v1/jobs", json=body | {"preset": "x"}, headers=headers)
    assert invalid.status_code == 422  # and the key is still free
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.http.post("/v1/jobs", json=body, headers=headers), range(8)))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(service.http.get("/v1/jobs").json()["items"]) == 1
    other = service.http.post("/v1/jobs", json=body | {"name": "other"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "idempotency-key-reused")


def test_idempotency_key_is_forgotten_after_its_time(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(idempotency_hours=1e-5)) as service:  # 36 ms
        body = {"upload_id": service.upload(), "preset": "smoke"}
        first = service.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"}).json()
        time.sleep(0.1)
        second = service.http.post("/v1/jobs", json=body | {"name": "n"}, headers={"Idempotency-Key": "k"})
        assert second.status_code == 202
        assert second.json()["id"] != first["id"]


def test_queue_has_an_end(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(max_queued_jobs=1)) as service:
        upload = service.upload()
        service.submit(upload_id=upload)
        answer = service.http.post("/v1/jobs", json={"upload_id": upload})
        assert (answer.status_code, answer.json()["retryable"]) == (429, True)
        assert answer.headers["Retry-After"]


def test_list_pages_and_filters(service: Harness) -> None:
    upload = service.upload()
    ids = [service.submit(upload_id=upload, tags=[f"t{number % 2}"])["id"] for number in range(5)]
    service.http.post(f"/v1/jobs/{ids[0]}/cancel")
    found, cursor = [], None
    for _ in range(3):
        page = service.http.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert found == ids[::-1]
    assert cursor is None
    assert [job["id"] for job in service.http.get("/v1/jobs?tag=t0&state=queued").json()["items"]] == [ids[4], ids[2]]
    for query in ("cursor=xx", "cursor=WzEsMl0=", "limit=0", "limit=101", "state=nope"):
        assert service.http.get(f"/v1/jobs?{query}").status_code == 422, query


def test_long_poll_returns_on_the_next_change(service: Harness) -> None:
    job = service.submit()
    started = time.monotonic()
    threading.Timer(0.6, lambda: service.http.post(f"/v1/jobs/{job['id']}/cancel")).start()
    seen = service.http.get(f"/v1/jobs/{job['id']}?wait=30").json()
    assert seen["state"] == "cancelled"
    assert 0.5 < time.monotonic() - started < 5
    started = time.monotonic()
    assert service.http.get(f"/v1/jobs/{job['id']}?wait=30").json()["state"] == "cancelled"
    assert service.http.get("/v1/jobs/none?wait=30").status_code == 404
    assert time.monotonic() - started < 1
    waiting = service.submit()
    assert service.http.get(f"/v1/jobs/{waiting['id']}?wait=0.6").json()["state"] == "queued"
    assert time.monotonic() - started > 0.6


def test_cancel_retry_and_their_conflicts(service: Harness) -> None:
    job = service.submit()
    url = f"/v1/jobs/{job['id']}"
    assert service.http.post(f"{url}/retry").status_code == 409
    for _ in range(2):  # repeats are harmless
        answer = service.http.post(f"{url}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert not service.runner.run(job["id"])
    answer = service.http.post(f"{url}/retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["attempt"]) == (202, "queued", 2)
    assert service.runner.run(job["id"])
    assert service.job(job["id"])["state"] == "succeeded"
    for action in ("cancel", "retry"):
        assert service.http.post(f"{url}/{action}").status_code == 409
    for action in ("cancel", "retry", "renders"):
        answer = service.http.post(f"/v1/jobs/none/{action}", json={"path": "orbit"})
        assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


def test_delete_leaves_a_tombstone_with_a_receipt(service: Harness) -> None:
    job = service.finished()
    url = f"/v1/jobs/{job['id']}"
    listed = {item["path"]: item["sha256"] for item in service.http.get(f"{url}/artifacts").json()["items"]}
    answer = service.http.delete(url)
    assert answer.status_code == 202
    receipt = answer.json()["receipt"]
    removed = {entry["path"].removeprefix("run/"): entry["sha256"] for entry in receipt["files"]}
    assert listed.items() <= removed.items()
    assert receipt["count"] == len(receipt["files"]) > 5
    assert not service.runner.files.job(job["id"]).exists()
    gone = service.http.get(url)
    assert (gone.status_code, gone.json()["type"], gone.json()["receipt"]) == (410, "deleted", receipt)
    for path in ("/artifacts", "/artifacts.zip", "/artifacts/renders/orbit.mp4", "/events", "/logs"):
        assert service.http.get(url + path).status_code == 410
    assert service.http.get("/v1/jobs").json()["items"] == []


def test_logs_go_on_from_a_cursor(service: Harness) -> None:
    job = service.submit(steer(lines=5))
    url = f"/v1/jobs/{job['id']}/logs"
    assert service.http.get(url).json() == {"items": [], "next_cursor": "0"}
    service.runner.run(job["id"])
    page = service.http.get(url, params={"limit": 3}).json()
    rest = service.http.get(url, params={"after": page["next_cursor"]}).json()
    texts = [line["text"] for line in page["items"] + rest["items"]]
    assert [text for text in texts if text.startswith("attempt 1 line")] == [
        f"attempt 1 line {n} red" for n in range(5)
    ]
    assert texts[0].startswith("attempt 1 starts")
    assert service.http.get(url, params={"after": rest["next_cursor"]}).json()["items"] == []
    assert service.http.get(url, params={"after": "-1"}).status_code == 422
    assert service.http.get(url, params={"after": 10**9}).json()["items"] == []


def test_renders_are_jobs_of_their_own(service: Harness) -> None:
    waiting = service.submit()
    early = service.http.post(f"/v1/jobs/{waiting['id']}/renders", json={"path": "orbit"})
    assert (early.status_code, early.json()["type"], early.json()["retryable"]) == (409, "not-finished", True)
    parent = service.finished()
    path = {"camera_path": [CAMERA | {"camera_to_world": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}] * 3}
    answer = service.http.post(f"/v1/jobs/{parent['id']}/renders", json={"path": path, "fps": 12.5, "width": 64})
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["parent_id"], [stage["name"] for stage in job["stages"]]) == (
        "render",
        parent["id"],
        ["render"],
    )
    assert service.runner.run(job["id"])
    done = service.job(job["id"])
    assert (done["state"], done["progress"], done["problem"]) == ("succeeded", 1.0, None)
    items = service.http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]
    video = next(item for item in items if item["path"] == "renders/path-1.mp4")
    assert service.http.get(video["url"]).content == b"video" * 3
    nested = service.http.post(f"/v1/jobs/{job['id']}/renders", json={"path": "orbit"})
    assert nested.status_code == 409


def test_camera_paths_of_a_job_reach_the_run_folder(service: Harness) -> None:
    paths = ["orbit", {"camera_path": [CAMERA], "name": "fly-by", "fps": 10}]
    job = service.submit(camera_paths=paths)
    assert job["camera_paths"][0] == "orbit"
    service.runner.run(job["id"])
    run = RunDir(service.runner.files.run(job["id"]))
    assert run.read_config()[0].render.paths == ("orbit", "camera_paths/fly-by.json")
    assert read_json(run.camera_paths / "fly-by.json")["camera_path"][0]["fov"] == 50


def test_start_deadline_expires_the_job(service: Harness) -> None:
    job = service.submit(start_deadline=0.05)
    kept = service.submit(start_deadline=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    time.sleep(0.1)
    assert not service.runner.run(job["id"])
    expired = service.job(job["id"])
    assert (expired["state"], expired["problem"]["type"]) == ("expired", "start-deadline")
    assert service.runner.run(kept["id"])
