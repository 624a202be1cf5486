"""The service under load, in its production form: `python -m tests.bench.service`.

One API process as docker-compose.yml starts it, PostgreSQL with 100 thousand jobs, Redis and this client share the
machine. Requests are open-loop: late ones count from when they were due. Compare rows of one table only.
"""

import asyncio
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import make_url, text

from api.db.session import make_engine
from tests.bench.many_jobs import copy_job
from tests.bench.open_loop import Answers, Listener, listen, open_loop, request
from tests.harness import job_when, steer, upload
from tests.production import Production, make_production
from tests.servers import free_port, postgres, process, redis_server, wait_ready

JOBS = 100_000
SECONDS = 15.0
LISTENERS = 200
SIZE = 256 << 20  # of the file that goes up and down
PIECE = 1 << 20


@contextmanager
def production_api(fleet: Production) -> Iterator[tuple[httpx.Client, int]]:
    """The API by the command of docker-compose.yml, and its process id."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process([*command, "--no-access-log"], env=fleet.environment) as api:
        wait_ready(url, api)
        with httpx.Client(base_url=url, timeout=120) as fleet.http:
            yield fleet.http, api.pid


def memory(pid: int, field: str = "VmRSS") -> int:
    """MiB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) >> 10


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bench_requests(http: httpx.Client, pid: int, kinds: list[tuple[str, float, Callable[[], bytes]]]) -> None:
    """Each kind of request at its rate, one after the other."""
    sys.stdout.write(f"\n  {'ms':<44}{'a second':>10}{'p50':>10}{'p95':>10}{'p99':>10}{'API cpu':>10}{'MiB':>8}\n")
    for name, rate, make in kinds:
        messages = [make() for _ in range(int(rate * SECONDS))]
        before, began = processor_seconds(pid), time.perf_counter()
        answers: Answers = asyncio.run(open_loop(http.base_url.port or 80, messages, rate))
        share = (processor_seconds(pid) - before) / (time.perf_counter() - began)
        refused = f"  {answers.refused} refused" if answers.refused else ""
        sys.stdout.write(f"  {name:<44}{rate:>10.0f}{answers.row()}{share:>10.0%}{memory(pid):>8}{refused}\n")
        sys.stdout.flush()


def bench_listeners(fleet: Production, pid: int, upload_id: str, known: list[str]) -> None:
    """Streams of a running job while others poll: what each brought, when, and what polls took."""
    with fleet.worker() as worker:
        body = {"upload_id": upload_id, "preset": "smoke", "settings": steer(steps=int(SECONDS * 10), sleep=0.1)}
        job = fleet.http.post("/v1/jobs", json=body).json()
        job_when(fleet.http, job["id"], "running")
        port, listeners = fleet.http.base_url.port or 80, [Listener([]) for _ in range(LISTENERS)]
        before, began = processor_seconds(pid), time.perf_counter()

        async def everything() -> Answers:
            streams = asyncio.gather(*(listen(port, job["id"], listener) for listener in listeners))
            await asyncio.sleep(2)
            polls = [request("GET", f"/v1/jobs/{random.choice(known)}") for _ in range(int(50 * SECONDS))]
            answers = await open_loop(port, polls, 50)
            await streams
            return answers

        answers = asyncio.run(everything())
        share = (processor_seconds(pid) - before) / (time.perf_counter() - began)
        sys.stdout.write(f"  worker at most {memory(worker.pid, 'VmHWM')} MiB, without its engine\n")
    whole = [[number for number, _ in listener.ids] for listener in listeners]
    last = max(ids[-1] for ids in whole)
    complete = sum(ids == list(range(1, last + 1)) for ids in whole)
    arrivals = [
        max(times) - min(times) for times in zip(*(dict(entry.ids).values() for entry in listeners), strict=False)
    ]
    spread = sorted(arrivals[2:])[len(arrivals[2:]) // 2]
    name = f"status polls beside {LISTENERS} event streams"
    sys.stdout.write(f"  {name:<44}{50:>10}{answers.row()}{share:>10.0%}{memory(pid):>8}\n")
    sys.stdout.write(
        f"  {complete} of {LISTENERS} streams whole: {last} events each, {spread * 1e3:.0f} ms from the first"
    )
    sys.stdout.write(" listener to the last\n")


def bench_bytes(fleet: Production, pid: int, folder: Path) -> None:
    """One file up and down, beside the same bytes written to and read from the same disk, and hashed."""
    content = random.Random(0).randbytes(PIECE)
    pieces = SIZE // PIECE

    def write() -> None:
        with (folder / "disk").open("wb", buffering=0) as file:
            for _ in range(pieces):
                file.write(content)
            os.fsync(file.fileno())

    def digest() -> None:
        found = hashlib.sha256()
        for _ in range(pieces):
            found.update(content)

    def up() -> None:
        answer = fleet.http.post("/v1/uploads?filename=a.mp4", content=(content for _ in range(pieces)))
        assert answer.status_code == 201, answer.text

    def down(path: str) -> Callable[[], None]:
        def read() -> None:
            with fleet.http.stream("GET", path) as answer:
                size = sum(map(len, answer.iter_raw(PIECE)))
            assert size == SIZE

        return read

    def read() -> None:
        with (folder / "disk").open("rb", buffering=0) as file:
            while file.read(PIECE):
                pass

    with fleet.worker():
        upload_id = upload(fleet.http)
        body = {"upload_id": upload_id, "preset": "smoke", "settings": steer(steps=1, ballast=SIZE)}
        job_id = job_when(fleet.http, fleet.http.post("/v1/jobs", json=body).json()["id"], "succeeded", seconds=120)[
            "id"
        ]
    sys.stdout.write(f"\n  {f'{SIZE >> 20} MiB':<44}{'MiB/s':>10}{'ratio':>10}{'MiB':>8}\n")
    artifact = fleet.run(job_id) / "ballast/1.bin"
    groups = [
        [
            ("write and flush a file", write, None),
            ("SHA-256 alone", digest, None),
            ("upload (hashed and flushed)", up, None),
        ],
        [
            ("read a file from the disk", read, folder / "disk"),
            ("download", down(f"/v1/jobs/{job_id}/artifacts/ballast/1.bin"), artifact),
        ],
    ]
    for group in groups:
        first = 0.0
        for name, action, cold in group:
            speeds = []
            for _ in range(3):
                os.sync()
                if cold:
                    forget(cold)
                began = time.perf_counter()
                action()
                speeds.append(SIZE / PIECE / (time.perf_counter() - began))
            speed = sorted(speeds)[1]
            first = first or speed
            sys.stdout.write(f"  {name:<44}{speed:>10.0f}{speed / first:>10.2f}{memory(pid):>8}\n")


def forget(path: Path) -> None:
    """Drop a file from the page cache, so that it is read from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    with postgres() as url, redis_server() as broker, tempfile.TemporaryDirectory(prefix="dpdy-bench-") as name:
        limits = {"DPDY_TENANT_QUEUED_JOBS": "0", "DPDY_PROGRESS_SECONDS": "1"}
        fleet = make_production(url, broker, Path(name), **limits)
        engine = make_engine(make_url(url))
        with production_api(fleet) as (http, pid):
            with fleet.worker():
                finished = fleet.submit(steps=20)["id"]
                job_when(http, finished, "succeeded", seconds=60)
            copy_job(engine, finished, JOBS - 1)
            with engine.connect() as connection:
                rows = connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()
                events = connection.execute(text("SELECT count(*) FROM job_events")).scalar_one()
                ids = text("SELECT id FROM jobs ORDER BY id LIMIT 1000")
                known = list(connection.execute(ids).scalars())
            load = " ".join(f"{value:.1f}" for value in os.getloadavg())
            sys.stdout.write(
                f"{os.cpu_count()} cores, load {load}; {rows} jobs, {events} events; API {memory(pid)} MiB\n"
            )
            upload_id = http.get(f"/v1/jobs/{finished}").json()["upload_id"]
            job = {"upload_id": upload_id, "preset": "smoke"}
            kinds = [
                ("GET /livez: no database", 200.0, lambda: request("GET", "/livez")),
                ("GET /v1/jobs/ID: status poll", 200.0, lambda: request("GET", f"/v1/jobs/{random.choice(known)}")),
                ("GET /v1/jobs: newest 20", 20.0, lambda: request("GET", "/v1/jobs")),
                ("POST /v1/jobs: submission", 20.0, lambda: request("POST", "/v1/jobs", job)),
            ]
            bench_requests(http, pid, kinds)
            with engine.begin() as connection:  # what was submitted only waits, and would run before all else
                put_off = "UPDATE jobs SET run_after = now() + interval '1 day', queued_at = now() + interval '1 day'"
                connection.execute(text(f"{put_off} WHERE state = 'queued'"))
            bench_listeners(fleet, pid, upload_id, known)
            bench_bytes(fleet, pid, Path(name))
            sys.stdout.write(f"\n  API at most {memory(pid, 'VmHWM')} MiB\n")
        engine.dispose()


if __name__ == "__main__":
    main()
