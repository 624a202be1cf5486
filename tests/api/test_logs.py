"""Log lines as a collector gets them: JSON from every process, whom it is about, and no secret."""

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.logs import JsonLines, TextLines, about, carrying
from api.settings import Settings
from tests.harness import Harness, harness, job_when, steer, submit, upload
from tests.production import API, make_production
from tests.servers import free_port, process, wait_ready

SECRETS = ("dpdy_secretkey", "sixty-four-signature", "whsec_", "hunter2")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What is logged from here on, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root, access = logging.getLogger(), logging.getLogger("access")
    root.addHandler(handler)
    access.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    access.setLevel(logging.NOTSET)


def test_every_process_writes_json(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    production = make_production(postgres_url, redis_url, tmp_path, DPDY_LOG_FORMAT="json")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = [sys.executable, "-m", "uvicorn", "--factory", API, "--port", str(port)]
    headers = {"X-Request-ID": "desk-7", "Authorization": "Bearer dpdy_secretkey", "Cookie": "session=hunter2"}
    with process(serve, env=production.environment) as api, httpx.Client(base_url=url, timeout=20) as production.http:
        wait_ready(url, api)
        with production.worker() as worker:
            secret = production.http.get("/v1/webhooks/secret").json()["secret"]
            hook = {"url": "https://receiver.invalid/?token=hunter2", "secret": secret}
            job = submit(production.http, upload(production.http), steer(steps=2, lines=2), webhook=hook)
            job_when(production.http, job["id"], "succeeded")
            asked = production.http.get(f"/v1/jobs/{job['id']}?signature=sixty-four-signature", headers=headers)
            assert asked.headers["X-Request-ID"] == "desk-7"
            assert production.http.get("/livez").headers["X-Request-ID"]
            texts = [running.log.read_text() for running in (api, worker)]  # type: ignore[attr-defined]
    for text in texts:
        assert not any(word in text for word in SECRETS)
        assert all({"time", "level", "logger", "message"} <= json.loads(line).keys() for line in text.splitlines())
    of_api, of_worker = ([json.loads(line) for line in text.splitlines()] for text in texts)
    [access] = [line for line in of_api if line.get("request_id") == "desk-7"]
    expected = {"logger": "access", "method": "GET", "path": f"/v1/jobs/{job['id']}", "status": 200, "job": job["id"]}
    assert access | expected == access
    assert access["seconds"] >= 0
    assert access["bytes"] == len(asked.content)
    assert not [line for line in of_api if line.get("path") == "/livez"]
    of_job = [line for line in of_worker if (line.get("job"), line.get("attempt")) == (job["id"], 1)]
    assert {"engine", "worker.runner"} <= {line["logger"] for line in of_job}
    assert "attempt 1 line 1 \x1b[31mred\x1b[0m" in [line["message"] for line in of_job]


def test_a_fault_is_found_by_its_request_id(
    service: Harness, lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("api.db.queries.jobs", fault)
    answer = service.http.get("/v1/jobs", headers={"X-Request-ID": "desk-8"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "desk-8")
    assert [(line["status"], line["request_id"]) for line in lines() if line["logger"] == "access"] == [(500, "desk-8")]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "ü", '"}', "{{x}}"])
def test_a_request_id_that_could_spoil_a_line_is_replaced(service: Harness, given: str) -> None:
    answer = service.http.get("/livez", headers={"X-Request-ID": given.encode()})
    assert answer.headers["X-Request-ID"] not in ("", given)


def test_nobody_forges_a_line() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s", ("x\n2026 INFO forged\x1b[2K\u2028\x85",), None)
    text = TextLines().format(record)
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert len(JsonLines().format(record).splitlines()) == 1


def test_threads_carry_whom_their_lines_are_about(lines: Callable[[], list[dict[str, Any]]]) -> None:
    def speak() -> None:
        logging.getLogger("t").warning("here")

    with about(job="j", attempt=2):
        threads = [threading.Thread(target=carrying(speak)), threading.Thread(target=speak)]
        for thread in threads:
            thread.start()
            thread.join()
    speak()
    assert [(line.get("job"), line.get("attempt")) for line in lines()] == [("j", 2), (None, None), (None, None)]


def test_errors_of_the_database_do_not_show_its_values(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings()) as service, service.sessions() as session:
        connection = session.connection()
        with pytest.raises(Exception, match="no such table") as raised:
            connection.exec_driver_sql("SELECT * FROM nowhere WHERE secret = ?", ("hunter2",))
        assert "hunter2" not in str(raised.value)
