"""What `dpdy admin drill` tries: a safe part of the fault tests. Each says what it measured, or raises Failed."""

import hashlib
import os
import signal
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from api.db.models import Job
from api.jobs import service
from api.webhooks import target
from worker.drill.site import Failed, Site, Skipped, expect, until
from worker.invariants import ROWS, check

Check = Callable[[Site], str]
LINK = "renders/orbit.mp4"


def readiness(site: Site) -> str:
    """The database answers and is migrated, the storage can be written and has room, a worker was seen lately."""
    answer = site.anybody.get("/readyz").json()
    wrong = [f"{name}: {state}" for name, state in answer["checks"].items() if state != "ok"]
    expect(not wrong, "; ".join(wrong))
    return "database, storage, worker"


def broker(site: Site) -> str:
    """The broker answers."""
    if site.settings.broker_url is None:
        raise Skipped("embedded: there is no broker")
    waiting = site.bell.waiting()
    expect(waiting is not None, "the broker does not answer; jobs start all the same, a poll later")
    return f"{waiting} messages wait"


def one_job_for_one_key(site: Site) -> str:
    """The same Idempotency-Key 50 times at once is one job; with another body it is refused."""
    wanted, headers = site.body(), {"Idempotency-Key": "drill"}

    def post(_: int) -> httpx.Response:
        return site.http.post("/v1/jobs", json=wanted, headers=headers)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    statuses, ids = {answer.status_code for answer in answers}, {answer.json().get("id") for answer in answers}
    expect(statuses == {202}, f"answers {sorted(statuses)}")
    expect(len(ids) == 1, f"{len(ids)} jobs")
    other = site.http.post("/v1/jobs", json={**wanted, "name": "another"}, headers=headers).status_code
    expect(other == 422, f"another body was answered {other}")
    site.http.post(f"/v1/jobs/{ids.pop()}/cancel")
    return "50 requests, 1 job"


def cancel_while_queued(site: Site) -> str:
    """A waiting job is cancelled at once; a repeat is harmless; it never starts."""
    job_id = site.submit()
    states = [site.http.post(f"/v1/jobs/{job_id}/cancel").json()["state"] for _ in range(2)]
    expect(states == ["cancelled"] * 2, f"answers {states}")
    with site.everybodys.begin() as session:
        expect(service.claim(session, job_id, "drill", 1.0) is None, "it could be started")
    return "cancelled twice, not started"


def fencing(site: Site) -> str:
    """A worker whose lease has run out can write nothing any more, whoever has the job now."""
    job_id, first, second = site.submit(), "drill-first", "drill-second"
    with site.everybodys.begin() as session:
        expect(service.claim(session, job_id, first, 0.2), "it could not be claimed")
    with site.everybodys.begin() as session:
        expect(service.claim(session, job_id, second, 60.0) is None, "it could be claimed twice")

    def reaped() -> bool:  # by a worker's sweep, or by us
        with site.everybodys.begin() as session:
            service.reap(session, job_id, 1, site.settings)
            return session.get_one(Job, job_id).attempt == 2

    until(reaped, 10, "the lease's end")
    for again in (False, True):
        if again:
            with site.everybodys.begin() as session:
                expect(service.claim(session, job_id, second, 60.0), "it could not be taken over")
        with site.everybodys.begin() as session:
            written = [
                service.record(session, job_id, 1, [("warning", {"kind": "warning", "message": "late"})], first),
                service.heartbeat(session, job_id, 1, 60.0, first),
                service.finish(session, job_id, 1, "succeeded", None, worker=first),
            ]
        expect(not any(written), f"late writes were taken: {written}")
    with site.everybodys.begin() as session:
        service.request_cancel(session, session.get_one(Job, job_id))
        service.finish(session, job_id, 2, "cancelled", None, worker=second)
    return "6 late writes refused"


def lost_doorbell(site: Site) -> str:
    """A job whose message was lost is found by the poll."""
    site.hand()
    site.bell.broken = True
    try:
        job_id = site.submit(steps=1)
    finally:
        site.bell.broken = False
    expect(job_id not in site.bell.sent, "its message was not lost")
    submitted = time.monotonic()
    site.ended(job_id, "succeeded")
    return f"done after {time.monotonic() - submitted:.1f} s"


def killed_worker(site: Site) -> str:
    """SIGKILL of a worker: its engine is gone, another one goes on from the last checkpoint when the lease is over."""
    first = site.hand()
    job_id = site.submit(steps=60, sleep=0.05)
    engine = site.step(job_id, attempt=1, step=30)
    first.kill()
    first.wait()
    killed = time.monotonic()
    site.hand()
    until(lambda: _gone(engine), 10, "the end of the engine")
    gone = time.monotonic() - killed
    site.step(job_id, attempt=2, step=1)
    taken = time.monotonic() - killed
    site.ended(job_id, "succeeded")
    expect(site.start(job_id, 2)["first"] >= 1, "it began anew")
    return f"engine gone after {gone:.1f} s, taken over after {taken:.1f} s (lease {site.settings.lease_seconds:g} s)"


def killed_engine(site: Site) -> str:
    """SIGKILL of an engine: the next attempt goes on from the last checkpoint."""
    site.hand()
    job_id = site.submit(steps=30, sleep=0.05)
    os.kill(site.step(job_id, attempt=1, step=5), signal.SIGKILL)
    done = site.ended(job_id, "succeeded")
    expect(done["attempt"] == 2, f"it took {done['attempt']} attempts")
    begun = site.start(job_id, 2)["first"]
    expect(begun >= 3, f"it began at step {begun}")
    return f"went on from step {begun}"


def cancel_while_running(site: Site) -> str:
    """A running engine, deaf to SIGTERM, is gone 10 s after the cancellation at the latest."""
    site.hand()
    job_id = site.submit(steps=600, sleep=0.05, deaf=1)
    engine = site.step(job_id, attempt=1, step=3)
    asked = time.monotonic()
    site.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    site.ended(job_id, "cancelled", seconds=10)
    took = time.monotonic() - asked
    expect(_gone(engine), "its engine still runs")
    return f"gone after {took:.1f} s"


def storage(site: Site) -> str:
    """What is uploaded and made comes back byte for byte, also after a break; damaged bytes are refused."""
    body = os.urandom(3 << 20)
    expect(site.upload(body)["sha256"] == hashlib.sha256(body).hexdigest(), "the upload has another SHA-256")
    digest = b64encode(hashlib.sha256(b"other").digest()).decode()
    headers = {"Repr-Digest": f"sha-256=:{digest}:"}
    damaged = site.http.post("/v1/uploads?filename=drill.mp4", content=body, headers=headers).status_code
    expect(damaged == 422, f"an upload with another hash was answered {damaged}")
    path, whole, tag = _made(site)
    rest = site.http.get(path, headers={"Range": "bytes=1000-", "If-Range": tag})
    expect(rest.status_code == 206, f"Range was answered {rest.status_code}")
    expect(whole[:1000] + rest.content == whole, "Range gave other bytes")
    beyond = site.http.get(path, headers={"Range": f"bytes={len(whole)}-"}).status_code
    expect(beyond == 416, f"a range beyond the end was answered {beyond}")
    return f"{len(body) >> 20} MiB up, {len(whole) >> 10} KiB down"


def links_and_keys(site: Site) -> str:
    """A signed link opens its file and nothing else; without a key, with a wrong or another tenant's nothing opens."""
    path, whole, _ = _made(site)
    job = path.partition("/artifacts")[0]
    items = site.http.get(f"{job}/artifacts").json()["items"]
    link = next(item["url"] for item in items if item["path"] == LINK)
    expect(site.anybody.get(link).content == whole, "a signed link did not open its file")
    place, _, query = link.partition("?")
    forged = f"{place}?{query.replace('signature=', 'signature=A')}"
    moved = f"{place.replace(LINK, 'manifest.json')}?{query}"
    stranger = {"Authorization": f"Bearer {site.key(site.tenant + '-other')}"}
    unknown = {"Authorization": f"Bearer dpdy_{'0' * 46}"}
    answers = {
        "a forged link": (site.anybody.get(forged), 401),
        "a link to another file": (site.anybody.get(moved), 401),
        "no key": (site.anybody.get(job), 401),
        "an unknown key": (site.anybody.get(job, headers=unknown), 401),
        "another tenant's key": (site.anybody.get(job, headers=stranger), 404),
    }
    for what, (answer, wanted) in answers.items():
        expect(answer.status_code == wanted, f"{what} was answered {answer.status_code}")
    return f"{len(answers)} refused"


def receivers(site: Site) -> str:
    """Webhooks to this machine, private networks and a cloud's metadata are refused, by address and by name."""
    expect(not site.settings.webhook_loopback, "DPDY_WEBHOOK_LOOPBACK is on: it is for tests only")
    hosts = ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"]
    body = site.body()
    for host in hosts:
        answer = site.http.post("/v1/jobs", json={**body, "webhook": f"https://{host}/"})
        refused = answer.status_code == 422 and answer.json()["type"] == "bad-webhook"
        expect(refused, f"a receiver at {host} was answered {answer.status_code}")
    with suppress(target.Refused):
        target.addresses(target.parse("https://localhost/", False), False)
        raise Failed("a name of this machine was taken")
    return f"{len(hosts) + 1} refused"


def deletion(site: Site) -> str:
    """A deleted job leaves a receipt and nothing else."""
    path, _, _ = _made(site)
    job_id = path.split("/")[3]
    receipt = site.http.delete(f"/v1/jobs/{job_id}").json()["receipt"]
    expect(receipt and receipt["count"], "there is no receipt")
    answer = site.http.get(path).status_code
    expect(answer == 410, f"a file of it was answered {answer}")
    left = [name for name, _ in site.files.job_files(job_id, [])]
    expect(not left, f"{len(left)} files are left")
    return f"{receipt['count']} files, {receipt['bytes']} bytes"


def invariants(site: Site) -> str:
    """After all this: legal states and events, one live attempt at most, limits kept, hashes right."""
    found = check(site.sessions, site.files, site.settings, ROWS)
    expect(not found, "; ".join(f"{each.rule}: {each.subject} {each.detail}" for each in found[:3]))
    with site.sessions() as session:
        return f"{session.query(Job).count()} jobs"


def _made(site: Site) -> tuple[str, bytes, str]:
    """A file of a job that succeeded: its path, bytes and tag, which is its hash."""
    done = site.http.get("/v1/jobs", params={"state": "succeeded", "limit": 1}).json()["items"]
    if not done:
        raise Failed("no job of the drill has succeeded")
    path = f"/v1/jobs/{done[0]['id']}/artifacts/{LINK}"
    answer = site.http.get(path)
    expect(answer.status_code == 200, f"a file was answered {answer.status_code}")
    tag = answer.headers["ETag"]
    expect(tag == f'"{hashlib.sha256(answer.content).hexdigest()}"', "a file has another SHA-256")
    return path, answer.content, tag


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()


CHECKS: tuple[tuple[Check, str], ...] = (
    (readiness, ""),
    (broker, "F8"),
    (one_job_for_one_key, "F26"),
    (cancel_while_queued, "F25"),
    (fencing, "F5"),
    (lost_doorbell, "F9"),
    (killed_worker, "F2"),
    (killed_engine, "F1"),
    (cancel_while_running, "F25"),
    (storage, "F18, F29"),
    (links_and_keys, ""),
    (receivers, "F27"),
    (deletion, "F30"),
    (invariants, ""),
)
