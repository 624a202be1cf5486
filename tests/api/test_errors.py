import subprocess
import sys
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from tests.harness import Harness, harness


@pytest.mark.parametrize(
    ("method", "path", "status", "type"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/jobs/none", 404, "not-found"),
        ("GET", "/v1/uploads/none", 404, "not-found"),
        ("PATCH", "/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/v1/jobs?limit=x", 422, "invalid-request"),
        ("GET", "/static/none.js", 404, "not-found"),
    ],
)
def test_every_error_is_a_problem(service: Harness, method: str, path: str, status: int, type: str) -> None:
    answer = service.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"], problem["status"], problem["retryable"]) == (type, status, False)
    assert {"title", "detail", "errors"} <= problem.keys()


def test_faults_do_not_show_their_inside(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("api.db.queries.jobs", fault)
    answer = service.http.get("/v1/jobs")
    assert (answer.status_code, answer.json()["type"]) == (500, "internal")
    assert "secret" not in answer.text


def test_database_away_is_503(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(database_url="postgresql://nobody@127.0.0.1:1/none")
    app = create_app(settings)
    http = TestClient(app, raise_server_exceptions=False)  # without the lifespan: it needs the database
    answer = http.get("/v1/jobs")
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert answer.headers["Retry-After"]
    assert http.get("/livez").status_code == 200
    ready = http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["worker"] == "unknown"


def test_bodies_are_short(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(max_body_bytes=2000)) as service:
        for content in (b'"' + b"x" * 3000 + b'"', iter([b'"' + b"x" * 1500, b"x" * 1500 + b'"'])):
            answer = service.http.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["type"]) == (413, "body-too-large")


def test_service_routes(service: Harness) -> None:
    presets = service.http.get("/v1/presets").json()
    assert {item["name"] for item in presets["items"]} == {"smoke", "fast", "paper"}
    assert presets["items"][0]["settings"]["scene"]["steps"] > 0
    assert presets["schema"]["properties"]["scene"]
    info = service.http.get("/v1/info").json()
    assert info["limits"]["max_upload_bytes"] == service.settings.max_upload_bytes
    assert info["workers"] == []
    ready = service.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {
        "database": "ok",
        "storage": "ok",
        "worker": "no worker was seen lately (`dpdy worker`)",
    }
    service.submit()
    assert 'dpdy_jobs{state="queued"} 1.0' in service.http.get("/metrics").text
    document = service.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)


def test_the_service_loads_without_torch() -> None:
    code = (
        "import sys, api.main, worker.cli; sys.exit(int(any(m in sys.modules for m in ('torch', 'diffusers', 'cv2'))))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
