"""A tenant who takes all that can be taken: the others notice nothing."""

import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import make_url

from api.db.session import make_engine, make_sessions
from tests.harness import bearer, job_when, make_key, steer, submit, upload
from tests.production import Production, make_production

SECONDS = 8.0
SIZE = 32_000_000  # more than sockets and servers hold in their buffers
OPEN = 12
LIMITS = {
    "DPDY_AUTH": "on",
    "DPDY_MAX_UPLOAD_BYTES": "4000000",
    "DPDY_TENANT_UPLOAD_BYTES": "20000000",
    "DPDY_TENANT_QUEUED_JOBS": "20",
    "DPDY_TENANT_OPEN_REQUESTS": str(OPEN),
    "DPDY_TENANT_REQUESTS_PER_MINUTE": "1200",
}


@pytest.fixture
def fleet(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Production]:
    production = make_production(postgres_url, redis_url, tmp_path, **LIMITS)
    yield production
    assert production.violations() == []


class Hostile:
    """Many threads that do one thing each as fast as they can, and count what they are answered."""

    def __init__(self, url: str, headers: dict[str, str], upload_id: str) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.unpaced = 0  # 429 without Retry-After
        self._url, self._headers, self._upload_id = url, headers, upload_id
        self._stop = threading.Event()
        kinds = [self._jobs] * 4 + [self._uploads] * 2 + [self._listings] * 6
        self._threads = [threading.Thread(target=self._repeat, args=(kind,)) for kind in kinds]

    def __enter__(self) -> "Hostile":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, ask: object) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=30) as http:
            while not self._stop.is_set():
                kind, answer = ask(http)  # type: ignore[operator]
                self.answers[kind, answer.status_code] += 1
                self.unpaced += answer.status_code == 429 and int(answer.headers.get("Retry-After", 0)) < 1

    def _jobs(self, http: httpx.Client) -> tuple[str, httpx.Response]:
        body = {"upload_id": self._upload_id, "preset": "smoke", "settings": steer(steps=1)}
        return "job", http.post("/v1/jobs", json=body)

    def _uploads(self, http: httpx.Client) -> tuple[str, httpx.Response]:
        return "upload", http.post("/v1/uploads?filename=a.mp4", content=b"x" * 4_000_000)

    def _listings(self, http: httpx.Client) -> tuple[str, httpx.Response]:
        return "list", http.get("/v1/jobs?limit=100")


def slow_reader(url: str, path: str, headers: dict[str, str]) -> tuple[socket.socket, int]:
    """A download of which only the status is ever read."""
    host = urlsplit(url)
    reader = socket.create_connection((host.hostname, host.port))
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host.netloc}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    reader.sendall("\r\n".join(lines).encode())
    reader.settimeout(30)
    return reader, int(reader.recv(12).split()[1])


def waits(http: httpx.Client, job_id: str, headers: dict[str, str], seconds: float) -> list[float]:
    """How long each status poll of the other tenant took, ten a second."""
    taken, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.monotonic()
        assert http.get(f"/v1/jobs/{job_id}", headers=headers).status_code == 200
        taken.append(time.monotonic() - started)
        time.sleep(0.1)
    return taken


@pytest.mark.faults
@pytest.mark.fault("F35")
def test_a_hostile_tenant_is_held_and_others_go_on(fleet: Production) -> None:
    """A tenant floods with jobs, full uploads and requests and reads slowly: 429; another's polls and job go on."""
    sessions = make_sessions(make_engine(make_url(fleet.environment["DPDY_DATABASE_URL"])))
    bad, good = (bearer(make_key(sessions, tenant)) for tenant in ("bad", "good"))
    with fleet.api() as http, ExitStack() as stack:
        http.headers.update(bad)
        with fleet.worker():
            theirs = upload(http)
            big = submit(http, theirs, steer(steps=1, ballast=SIZE))["id"]
            job_when(http, big, "succeeded", seconds=60)
            http.headers.update(good)
            polled = submit(http, upload(http), steer(steps=1))["id"]
            job_when(http, polled, "succeeded", seconds=60)
            url = str(http.base_url).rstrip("/")
            path = f"/v1/jobs/{big}/artifacts/ballast/1.bin"
            readers = [slow_reader(url, path, bad) for _ in range(2 * OPEN)]
            for reader, _ in readers:
                stack.callback(reader.close)
            opened = [status for _, status in readers]
            assert opened.count(200) == OPEN
            assert opened.count(429) == OPEN
            for reader, _ in readers[: OPEN // 2]:  # half of them stay to the end
                reader.close()
            with Hostile(url, bad, theirs) as hostile:
                during = waits(http, polled, good, SECONDS)
                mine = submit(http, upload(http), steer(steps=1))["id"]
            done = job_when(http, mine, "succeeded", seconds=120)
        statuses = {status for _, status in hostile.answers}
        assert statuses <= {200, 201, 202, 429}, hostile.answers
        assert hostile.answers["list", 429] > 0
        assert hostile.unpaced == 0
        with sessions() as session:
            assert session.connection().exec_driver_sql(
                "SELECT sum(size) FROM uploads WHERE tenant = 'bad' AND deleted_at IS NULL"
            ).scalar_one() <= int(LIMITS["DPDY_TENANT_UPLOAD_BYTES"])
        assert done["state"] == "succeeded"
        assert statistics.quantiles(during, n=20)[-1] < 2  # p95, on the processors that the flood is made on, too
