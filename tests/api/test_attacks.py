"""A table of attacks, sent byte for byte to a real server: each is refused as designed, and hurts nobody."""

import http.client
import io
import json
import socket
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn

from api import keys
from api.db.models import now
from api.settings import Settings
from tests.api.attack_table import CLOSED, JSON, TABLE, Attack
from tests.harness import Document, Harness, bearer, harness, lasting_violations, make_key, steer, upload
from tests.production import STANDIN
from tests.servers import wait_for

LIMITS = {
    "max_body_bytes": 4096,
    "max_upload_bytes": 4096,
    "body_seconds": 0.4,
    "upload_idle_seconds": 0.4,
    "stranger_requests_per_minute": 0,
    "tenant_queued_jobs": 40,
}


@dataclass
class Victim:
    """A running service, what tenant `ours` has in it, and the headers that attackers can send."""

    service: Harness
    address: tuple[str, int]
    ids: dict[str, str]
    callers: dict[str, str]
    before: Document

    def send(self, raw: bytes, method: str = "POST") -> tuple[int, bytes]:
        """Status and body of the answer to these bytes."""
        with socket.create_connection(self.address, 10) as connection:
            try:
                connection.sendall(raw)
                answer = http.client.HTTPResponse(connection, method=method)
                answer.begin()
                return answer.status, answer.read()
            except (ConnectionResetError, BrokenPipeError):
                return CLOSED, b""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    data = tmp_path_factory.mktemp("attacked") / "data"
    settings = Settings(_env_file=None, data=data, auth="on", min_free_bytes=0, engine=STANDIN, **LIMITS)  # type: ignore[call-arg]
    with harness(settings) as service:
        service.http.headers.update(bearer(make_key(service.sessions, "ours")))
        before = service.finished()
        ids = owned(service, before["id"])
        with served(service) as address:
            yield Victim(service, address, ids, callers(service), before)
        after = service.job(before["id"])
        assert after == before
        assert service.http.get(f"/v1/uploads/{ids['upload']}").json()["state"] == "ready"
        assert service.http.get(f"/v1/studies/{ids['study']}").json()["state"] == "open"
        service.http.delete(f"/v1/studies/{ids['study']}")
        assert lasting_violations(service) == []
        assert {path.name for path in data.parent.iterdir()} == {"data"}


@contextmanager
def served(service: Harness) -> Iterator[tuple[str, int]]:
    """The application behind a real server in a thread."""
    config = uvicorn.Config(service.http.app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


def owned(service: Harness, job: str) -> dict[str, str]:
    """The ids of what `ours` has, and a link to a file of it."""
    http = service.http
    clips = [{"method": name, "job_id": job, "path": "renders/orbit.mp4"} for name in ("a", "b")]
    study = http.post("/v1/studies", json={"name": "s", "clips": clips}).json()["id"]
    files = f"/v1/jobs/{job}/artifacts"
    link = next(item["url"] for item in http.get(files).json()["items"] if item["path"] == "renders/orbit.mp4")
    path, _, query = link.partition("?")
    return {"job": job, "upload": upload(http), "study": study, "files": files, "file": path, "query": query}


def callers(service: Harness) -> dict[str, str]:
    """The header lines by which an attacker says who they are."""

    def line(key: str) -> str:
        return f"Authorization: Bearer {key}\r\n"

    ours, theirs = make_key(service.sessions, "ours"), make_key(service.sessions, "theirs")
    late = make_key(service.sessions, "ours", expires_at=now() - timedelta(seconds=1))
    revoked = make_key(service.sessions, "ours")
    with service.sessions.begin() as session:
        keys.revoke(session, revoked[:13])
    stranger = keys.draw_key()
    twin = ours[:13] + stranger[13:45]
    signed_in = service.http.post("/v1/session", json={"key": ours}, headers={"Sec-Fetch-Site": "same-origin"})
    cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
    service.http.cookies.clear()
    return {
        "ours": line(ours),
        "theirs": line(theirs),
        "reader": line(make_key(service.sessions, "ours", "read")),
        "nobody": "",
        "late": line(late),
        "revoked": line(revoked),
        "unknown": line(stranger),
        "twin": line(twin + keys.checksum(twin)),
        "typo": line(ours[:-1] + ("a" if ours[-1] != "a" else "b")),
        "cut": line(ours[:-6]),
        "basic": f"Authorization: Basic {ours}\r\n",
        "bare": f"Authorization: {ours}\r\n",
        "double": line(ours) * 2,
        "long": line("dpdy_" + "x" * 20_000),
        "folded": f"X-Api-Key: {ours}\r\n",
        "cookie": f"Cookie: {cookie}\r\n",
        "crossed": f"Cookie: {cookie}\r\nSec-Fetch-Site: cross-site\r\n",
        "forged": f"Cookie: {cookie[:-4]}AAAA\r\n",
        "unsigned": "Cookie: dpdy_session=key-1.9999999999.\r\n",
    }


def request(victim: Victim, attack: Attack) -> bytes:
    """The bytes of an attack. Nothing tidies the path or the headers."""
    caller, method, target, headers, body, _ = attack
    for name, value in victim.ids.items():
        target = target.replace(f"{{{name}}}", value)
        body = body.replace(f"{{{name}}}", value) if isinstance(body, str) else body
    content = body.encode() if isinstance(body, str) else body
    length = f"Content-Length: {len(content)}\r\n" if method in ("POST", "PUT", "PATCH") else ""
    length = "" if "Transfer-Encoding" in headers else length
    head = f"{method} {target} HTTP/1.1\r\nHost: dpdy.example\r\nConnection: close\r\n"
    return f"{head}{victim.callers[caller]}{headers}{length}\r\n".encode("latin-1") + content


@pytest.mark.parametrize("number", range(len(TABLE)), ids=lambda number: " ".join(TABLE[number][:3])[:60])
def test_attack(victim: Victim, number: int) -> None:
    status, body = victim.send(request(victim, TABLE[number]), TABLE[number][1])
    expected = TABLE[number][-1]
    assert status in ((400, CLOSED) if expected == CLOSED else (expected,)), body[:300]
    places = (str(place).encode() for place in (victim.service.settings.data, Path(__file__).resolve().parents[2]))
    for secret in (b"Traceback", b"root:", b"sqlite", *places):
        assert secret not in body


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60
    assert len({str(attack) for attack in TABLE}) == len(TABLE)


@pytest.mark.parametrize("target", ["/v1/jobs", "/v1/uploads?filename=a.mp4"])
def test_slow_bodies_are_given_up(victim: Victim, target: str) -> None:
    """A body that says it will come, and of which a byte comes."""
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\n{victim.callers['ours']}{JSON}Content-Length: 100\r\n\r\n"
    status, _ = victim.send(head.encode() + b"{")
    assert status == 408


def test_races_with_one_idempotency_key_make_one_job(victim: Victim) -> None:
    def submit(name: str) -> tuple[int, bytes]:
        content = json.dumps({"upload_id": victim.ids["upload"], "preset": "smoke", "settings": steer(), "name": name})
        headers = f"{JSON}Idempotency-Key: race\r\n"
        return victim.send(request(victim, ("ours", "POST", "/v1/jobs", headers, content, 202)))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(submit, ["one", "another"] * 16))
    made = {json.loads(body)["id"] for status, body in answers if status == 202}
    assert len(made) == 1
    assert {status for status, _ in answers} == {202, 422}
    [job] = made
    assert victim.service.http.post(f"/v1/jobs/{job}/cancel").status_code == 202


def zipped(*members: str, mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def test_hostile_members_of_a_zip(make_settings: Callable[..., Settings]) -> None:
    """With the real check: nothing is written anywhere else, and the problem names the member."""
    with harness(make_settings(auth="on", engine=Settings.model_fields["engine"].default)) as service:
        http = service.http
        http.headers.update(bearer(make_key(service.sessions)))
        members = [zipped("../../evil.png"), zipped("/tmp/evil.png"), zipped("a.png", mode=stat.S_IFLNK | 0o777)]
        sent = [http.post("/v1/uploads?filename=..%2f..%2fx.zip", content=body).json() for body in members]
        assert {upload["filename"] for upload in sent} == {"x.zip"}
        for upload in sent:
            url = f"/v1/uploads/{upload['id']}"
            wait_for(lambda url=url: http.get(url).json()["state"] != "checking", 60)  # type: ignore[misc]
            answer = http.get(url).json()
            assert answer["state"] == "rejected", answer
            assert "root:" not in json.dumps(answer)
        assert not list(service.settings.data.parent.rglob("*evil*"))
        assert not Path("/tmp/evil.png").exists()
