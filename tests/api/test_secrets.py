"""No secret in logs, errors, files and children of a service that is used and abused, logged at the level `debug`."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from api.db.session import make_engine, make_sessions
from api.jobs.uploads import child_environment
from api.logs import JsonLines
from api.main import create_app
from api.settings import Settings
from api.signing import Links
from api.webhooks.signature import new_secret
from tests.harness import bearer, job_when, make_key, steer, submit, upload
from tests.production import STANDIN
from tests.receiver import receiver
from tests.servers import wait_for
from worker.demo import service

SECRET = "correct-horse-battery-staple-0123456789"


@pytest.fixture
def talkative(tmp_path: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "DPDY_ENGINE": json.dumps(STANDIN),
            "DPDY_AUTH": "on",
            "DPDY_LOG_LEVEL": "debug",
            "DPDY_SECRET": SECRET,
            "DPDY_WEBHOOK_LOOPBACK": "true",
            "DPDY_MIN_FREE_BYTES": "0",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }.items():
            environment.setenv(name, value)
        with service(tmp_path) as url:
            yield url


def test_a_day_of_use_and_abuse(talkative: str, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data=tmp_path / "data")  # type: ignore[call-arg]
    key = make_key(make_sessions(make_engine(settings.database)), "ours")
    own, site = new_secret(), {"Sec-Fetch-Site": "same-origin"}
    api_links = Links(SECRET.encode(), 900)
    errors: list[str] = []
    with receiver() as inbox, httpx.Client(base_url=talkative, headers=bearer(key), timeout=20) as http:
        hook = {"url": inbox.url, "secret": own}
        job = submit(http, upload(http), steer(steps=1), webhook=hook)["id"]
        job_when(http, job, "succeeded")
        wait_for(lambda: inbox.messages)
        theirs = http.get("/v1/webhooks/secret").json()["secret"]
        link = http.get(f"/v1/jobs/{job}/artifacts").json()["items"][0]["url"]
        page = api_links.share(job, "ours", "renders/orbit.mp4")
        assert http.get(page).status_code == 200
        assert http.get(page.replace("orbit", "none")).status_code == 404
        signature = re.search(r"signature=([^&]+)", link)
        cookie = http.post("/v1/session", json={"key": key}, headers=site).cookies["dpdy_session"]
        assert signature
        secrets = [
            SECRET,
            key,
            key[13:45],
            own,
            theirs,
            signature[1],
            page.split(".")[2].partition("/")[0],
            cookie.rpartition(".")[2],
        ]
        half = key[:-1]
        for method, path, headers, body in (
            ("GET", f"{link}x", {"Authorization": ""}, None),
            ("GET", "/v1/jobs", {"Authorization": f"Bearer {half}"}, None),
            ("GET", "/v1/jobs", {"Authorization": f"Basic {key}"}, None),
            ("GET", f"/v1/jobs?key={key}&limit=x", {}, None),
            ("POST", "/v1/session", site, {"key": half}),
            ("POST", "/v1/session", site, {"key": [key]}),
            ("POST", "/v1/jobs", {}, {"upload_id": "x", "webhook": {**hook, "events": ["x"]}}),
            ("POST", "/v1/jobs", {}, {"upload_id": "x", "webhook": {**hook, "secret": f"{own}!"}}),
        ):
            answer = http.request(method, path, headers=headers, json=body)
            assert answer.status_code >= 400
            errors.append(answer.text + str(answer.headers))
        shown = [http.get(f"/v1/jobs/{job}").text, http.get(f"/v1/jobs/{job}/logs").text, http.get("/v1/info").text]
    log = (tmp_path / "service.log").read_text()
    assert f"/v1/jobs/{job}" in log  # it tells something
    files = [path.read_text(errors="replace") for path in settings.data.rglob("*.json*")]
    assert files
    for place in (log, *errors, *shown, *files):
        assert not [secret for secret in secrets if secret in place]


def test_a_database_that_is_away(make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = make_settings(database_url=f"postgresql://user:{SECRET}@127.0.0.1:1/none", secret=SECRET)
    answer = TestClient(create_app(settings), raise_server_exceptions=False).get("/v1/jobs")
    assert answer.status_code == 503
    lines = JsonLines()
    for text in (answer.text, caplog.text, repr(settings.secret), *(lines.format(record) for record in caplog.records)):
        assert SECRET not in text


def test_children_do_not_inherit_secrets(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    for name in ("DPDY_SECRET", "DPDY_DATABASE_URL", "DPDY_BROKER_URL", "DPDY_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    assert SECRET in os.environ.values()
    assert SECRET not in child_environment(settings).values()
