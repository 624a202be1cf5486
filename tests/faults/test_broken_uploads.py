"""Faults of uploads: real processes, real connections, and a tus client that nobody here wrote."""

import base64
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select
from tusclient.client import TusClient

from api.db.models import Job, Upload, now
from api.settings import Settings
from tests.harness import Harness, harness, lasting_violations, served
from tests.production import API, Production, make_production
from tests.servers import free_port, process, wait_for, wait_ready
from tests.tcp_proxy import tcp_proxy
from worker.sweep import sweep

BODY = os.urandom(40_000_000)
TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = TUS | {"Content-Type": "application/offset+octet-stream"}


@contextmanager
def api(fleet: Production, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uvicorn", "--factory", API, "--port", str(port)]
    with process(command, env=fleet.environment) as running:
        wait_ready(f"http://127.0.0.1:{port}", running)
        yield running


def kill(running: subprocess.Popen[bytes]) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.faults
@pytest.mark.fault("F17")
def test_the_api_is_killed_and_the_client_goes_on(fleet: Production) -> None:
    """The API is killed within a chunk: the client goes on at what is stored, the SHA-256 is right."""
    port = free_port()
    with tcp_proxy(port, pause=0.002) as proxy, ThreadPoolExecutor(1) as pool:
        client = TusClient(f"{proxy.url}/v1/uploads/tus")
        announced = {"filename": "film.mp4", "sha256": hashlib.sha256(BODY).hexdigest()}
        with api(fleet, port) as first:
            sender = client.uploader(file_stream=io.BytesIO(BODY), metadata=announced, retries=300, retry_delay=0.2)
            sender.set_url(sender.create_url())
            sending = pool.submit(sender.upload)
            proxy.wait_passed(20_000_000)
            kill(first)
        parts = list((fleet.data / "uploads").glob("*.part"))
        stored = parts[0].stat().st_size
        assert 0 < stored < len(BODY)
        before = proxy.passed
        with api(fleet, port):
            url = f"http://127.0.0.1:{port}"
            identity = sender.url.rpartition("/")[2]
            sending.result(120)
            assert proxy.passed - before < len(BODY) - stored + 1_000_000  # nothing that was stored is sent again
            ask = f"{url}/v1/uploads/{identity}"
            ready = wait_for(lambda: (u := httpx.get(ask).json())["state"] == "ready" and u, 40)
            assert ready["sha256"] == announced["sha256"]


@pytest.mark.faults
@pytest.mark.fault("F17")
def test_abandoned_parts_go(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    """The API is killed within uploads that nobody goes on with: their parts go when their time is over."""
    fleet = make_production(postgres_url, redis_url, tmp_path, DPDY_UPLOAD_PART_HOURS="0.001")
    port, uploads = free_port(), tmp_path / "uploads"
    with tcp_proxy(port, pause=0.01) as proxy, api(fleet, port) as first:
        headers = TUS | {"Upload-Length": str(len(BODY))}
        url = httpx.post(f"http://127.0.0.1:{port}/v1/uploads/tus", headers=headers).headers["Location"]
        requests: list[Callable[[], httpx.Response]] = [
            lambda: httpx.patch(f"{proxy.url}{url}", headers=CHUNK | {"Upload-Offset": "0"}, content=BODY, timeout=30),
            lambda: httpx.post(f"{proxy.url}/v1/uploads?filename=a.mp4", content=BODY, timeout=30),
        ]
        threads = [threading.Thread(target=_send, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        wait_for(lambda: len([p for p in uploads.glob("*.part") if p.stat().st_size]) == 2)
        kill(first)
        for thread in threads:
            thread.join()
    with fleet.api() as http, fleet.worker():
        wait_for(lambda: not any(uploads.iterdir()), 40)
        assert http.head(url, headers=TUS).status_code == 410
    assert fleet.violations() == []


def _send(request: Callable[[], httpx.Response]) -> None:
    with suppress(httpx.TransportError):
        request()


@pytest.fixture
def small(make_settings: Callable[..., Settings]) -> Iterator[tuple[Harness, int]]:
    """A service that takes 1 MB, and its port."""
    with harness(make_settings(max_upload_bytes=1_000_000)) as service, served(service) as port:
        yield service, port
        assert lasting_violations(service) == []


def left(service: Harness) -> tuple[list[str], int, int]:
    """Files, uploads and jobs that are there."""
    with service.sessions() as session:
        rows = session.scalar(select(func.count()).select_from(Upload).where(Upload.deleted_at.is_(None))) or 0
        jobs = session.scalar(select(func.count()).select_from(Job)) or 0
    return [path.name for path in service.runner.files.uploads.glob("*")], rows, jobs


NOTHING: tuple[list[str], int, int] = ([], 0, 0)


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


@pytest.mark.fault("F18")
def test_bad_uploads_leave_nothing(small: tuple[Harness, int]) -> None:
    """Uploads that are cut short, of wrong length or hash, empty, too large with or without their length: 4xx."""
    service, port = small
    url = f"http://127.0.0.1:{port}/v1/uploads?filename=a.mp4"
    other = {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(b'x').digest()).decode()}:"}
    large = bytes(1_000_001)
    assert kind(httpx.post(url, content=b"y" * 1000, headers=other)) == (422, "upload-damaged")
    assert kind(httpx.post(url, content=b"")) == (422, "upload-empty")
    assert kind(httpx.post(url, content=large)) == (413, "upload-too-large")
    assert kind(httpx.post(url, content=iter([large[:600_000], large[600_000:]]))) == (413, "upload-too-large")
    head = b"POST /v1/uploads?filename=a.mp4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
    for sent in (100, 500_000):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head + bytes(sent))
            wait_for(lambda: any(service.runner.files.uploads.glob("*.part")))
        wait_for(lambda: not any(service.runner.files.uploads.glob("*.part")))
    for size, status in (("1000001", 413), ("0", 422), ("-5", 400)):
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/uploads/tus", headers=TUS | {"Upload-Length": size})
        assert refused.status_code == status
    assert left(service) == NOTHING


@pytest.mark.fault("F18")
def test_two_clients_send_the_same_upload(small: tuple[Harness, int]) -> None:
    """Two clients send the same upload at once: one is told to wait, and the bytes are right."""
    service, port = small
    body = os.urandom(1_000_000)
    url = f"http://127.0.0.1:{port}/v1/uploads/tus"
    made = httpx.post(url, headers=TUS | {"Upload-Length": str(len(body))}).headers["Location"]
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:500_000]
        assert go_on.wait(20)
        yield body[500_000:]

    there, headers = f"http://127.0.0.1:{port}{made}", CHUNK | {"Upload-Offset": "0"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: httpx.patch(there, headers=headers, content=slowly(), timeout=30))
        part = service.runner.files.part(made.rpartition("/")[2])

        def second() -> bool:
            answer = httpx.patch(there, headers=headers, content=bytes(1000))
            return kind(answer) == (423, "upload-locked")

        wait_for(lambda: _locked(part))
        assert second()
        go_on.set()
        assert first.result(30).status_code == 204
    assert kind(httpx.patch(there, headers=headers, content=bytes(1000))) == (409, "offset-mismatch")
    ask = f"/v1/uploads/{made.rpartition('/')[2]}"
    found = wait_for(lambda: (u := service.http.get(ask).json())["state"] == "ready" and u)
    assert found["sha256"] == hashlib.sha256(body).hexdigest()


def _locked(part: Path) -> bool:
    """Whether a process holds a lock on it (`/proc/locks` names inodes)."""
    inode = f":{part.stat().st_ino} "
    return any("FLOCK" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.fault("F30")
@pytest.mark.parametrize("what", ["deleted", "swept"])
def test_an_upload_is_deleted_while_it_is_sent(small: tuple[Harness, int], what: str) -> None:
    """An upload is deleted while it is sent: 410, nothing left. The sweeper leaves one that somebody goes on with."""
    service, port = small
    body = os.urandom(900_000)
    url = f"http://127.0.0.1:{port}/v1/uploads/tus"
    made = httpx.post(url, headers=TUS | {"Upload-Length": str(len(body))}).headers["Location"]
    identity = made.rpartition("/")[2]
    with service.sessions.begin() as session:  # its time is nearly over
        session.get_one(Upload, identity).expires_at = now() + timedelta(seconds=30)
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:400_000]
        assert go_on.wait(20)
        yield body[400_000:]

    with ThreadPoolExecutor(1) as pool:
        headers = CHUNK | {"Upload-Offset": "0"}
        sent = pool.submit(
            lambda: httpx.patch(f"http://127.0.0.1:{port}{made}", headers=headers, content=slowly(), timeout=30)
        )
        wait_for(lambda: _locked(service.runner.files.part(identity)))
        if what == "deleted":
            assert service.http.delete(f"/v1/uploads/{identity}").status_code == 204
        else:
            with service.sessions() as session:
                wait_for(
                    lambda: (
                        session.get_one(Upload, identity, populate_existing=True).expires_at
                        > now() + timedelta(hours=1)
                    )
                )
            sweep(service.sessions, service.runner.queue, service.runner.files, service.settings)
        go_on.set()
        answer = sent.result(30)
    if what == "deleted":
        assert kind(answer) == (410, "upload-gone")
        assert left(service) == NOTHING
    else:
        assert answer.status_code == 204
        wait_for(lambda: service.http.get(f"/v1/uploads/{identity}").json()["state"] == "ready")
