"""Faults of webhook receivers, against real workers: no job waits for any of them, and no message is lost."""

import os
import signal
from contextlib import ExitStack

import pytest

from tests.harness import Document, job_when, steer, submit, upload
from tests.production import Production
from tests.receiver import receiver
from tests.servers import free_port, wait_for

QUICK = {"DPDY_WEBHOOK_LOOPBACK": "true", "DPDY_WEBHOOK_RETRY_SECONDS": "0.1", "DPDY_WEBHOOK_TRIES": "4"}


@pytest.fixture
def told(fleet: Production) -> Production:
    """The production form with receivers on this machine, tried again soon."""
    fleet.environment |= QUICK
    return fleet


def tell(production: Production, url: str, **words: float) -> Document:
    """A job whose start and end are told to `url`."""
    hook = {"url": url, "events": ["job.started", "job.succeeded"]}
    return submit(production.http, upload(production.http), steer(**words), webhook=hook)


def messages(production: Production, job_id: str) -> dict[str, Document]:
    listed = production.http.get(f"/v1/jobs/{job_id}/webhook").json()["deliveries"]
    return {message["type"]: message for message in listed}


def settled(production: Production, job_id: str, seconds: float = 30) -> dict[str, Document]:
    """A job's two messages once no try of them is left to be made."""

    def ask() -> dict[str, Document] | None:
        found = messages(production, job_id)
        over = len(found) == 2 and all(message["state"] != "pending" for message in found.values())
        return found if over else None

    return wait_for(ask, seconds, 0.2) or {}


@pytest.mark.faults
@pytest.mark.fault("F27")
def test_every_kind_of_bad_receiver(told: Production) -> None:
    """Receivers that are down, slow, drip, answer 500, redirect, die after receiving: no job waits, tries have a limit.

    They go on under one id and are visible in the job.
    """
    with told.api() as http, told.worker(), ExitStack() as stack:
        names = ("slow", "redirect", "drip", "dies", "500")
        bad = {name: stack.enter_context(receiver()) for name in names}
        bad["500"].answers = [500]
        addresses = {name: f"{bad[name].url}/{name}" for name in names} | {"down": f"http://127.0.0.1:{free_port()}/"}
        jobs = {name: tell(told, url) for name, url in addresses.items()}
        for job in jobs.values():  # one after the other, by one worker
            job_when(http, job["id"], "succeeded")
        assert bad["slow"].messages
        assert not any(m["log"] for m in messages(told, jobs["slow"]["id"]).values())  # its first try still hangs

        expected = {"redirect": (302, None), "500": (500, None), "down": (None, "connection refused")}
        expected["dies"] = (None, "the connection broke, or the answer was no HTTP")
        for name, end in expected.items():
            for message in settled(told, jobs[name]["id"]).values():
                assert (message["state"], message["tries"]) == ("failed", 4), name
                assert {(entry["status"], entry["error"]) for entry in message["log"]} == {end}, name
        assert not bad["redirect"].to("/elsewhere")
        for name in ("redirect", "dies", "500"):
            assert (len(bad[name].ids()), len(set(bad[name].ids()))) == (8, 2)
        for name in ("slow", "drip"):
            wait_for(lambda name=name: any(m["log"] for m in messages(told, jobs[name]["id"]).values()), 40, 0.5)
            logs = [entry for m in messages(told, jobs[name]["id"]).values() for entry in m["log"]]
            assert {entry["error"] for entry in logs} == {"timed out (at most 10 s)"}
            assert max(entry["seconds"] for entry in logs) < 20


@pytest.mark.faults
@pytest.mark.fault("F27")
def test_a_receiver_that_comes_back(told: Production) -> None:
    """The receiver is down and comes back: what waited arrives once, under its id."""
    told.environment |= {"DPDY_WEBHOOK_TRIES": "10"}
    port = free_port()
    with told.api() as http, told.worker():
        job = tell(told, f"http://127.0.0.1:{port}/")
        job_when(http, job["id"], "succeeded")
        wait_for(lambda: all(m["tries"] >= 2 for m in messages(told, job["id"]).values()), 20)
        with receiver(port) as back:
            found = settled(told, job["id"])
            assert {message["state"] for message in found.values()} == {"delivered"}
            assert sorted(back.ids()) == sorted(message["id"] for message in found.values())
            assert found["job.succeeded"]["log"][0]["error"] == "connection refused"


@pytest.mark.faults
@pytest.mark.fault("F27")
def test_the_sender_killed_while_the_receiver_thinks(told: Production) -> None:
    """SIGKILL of the worker that waits for a receiver's answer: another one tries again under the same id."""
    with told.api() as http, receiver() as inbox:
        with told.worker() as first:
            job = tell(told, f"{inbox.url}/slow")
            job_when(http, job["id"], "succeeded")
            wait_for(lambda: inbox.messages, 20)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
        inbox.release.set()
        with told.worker():
            found = settled(told, job["id"], 90)  # the dead one's hold runs out after a minute
    assert {message["state"] for message in found.values()} == {"delivered"}
    assert len(set(inbox.ids())) == 2
    assert len(inbox.messages) > 2
