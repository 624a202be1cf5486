"""Faults of event streams: real listeners in numbers, over connections that break."""

import asyncio
import socket
import time

import pytest

from tests.bench.open_loop import Listener, listen, open_loop, request
from tests.harness import job_when
from tests.production import Production
from tests.tcp_proxy import tcp_proxy

LISTENERS = 500


async def _broken_off(port: int, job_id: str, listener: Listener) -> None:
    """Listen over connections that are dropped every second, each time from the last event on."""
    while True:
        try:
            async with asyncio.timeout(1.0):
                return await listen(port, job_id, listener, listener.ids[-1][0] if listener.ids else 0)
        except TimeoutError:
            continue


@pytest.mark.faults
@pytest.mark.fault("F28")
def test_a_proxy_without_patience(fleet: Production) -> None:
    """A proxy that closes what is silent for 20 s: pings keep the stream of a job that waits for 50 s."""
    with fleet.api() as http, tcp_proxy(http.base_url.port or 80, patience=20) as proxy:
        job, listener = fleet.submit(steps=3), Listener([])

        async def wait_and_work() -> None:
            listening = asyncio.create_task(listen(proxy.port, job["id"], listener))
            await asyncio.sleep(50)
            assert not listening.done()
            assert (len(listener.ids), listener.pings) == (1, 3)
            await asyncio.to_thread(run_it)
            await asyncio.wait_for(listening, 10)

        def run_it() -> None:
            with fleet.worker():
                job_when(http, job["id"], "succeeded")

        asyncio.run(wait_and_work())
        numbers = [number for number, _ in listener.ids]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 5
        with socket.create_connection(("127.0.0.1", proxy.port), 30) as silent:  # it does close what is silent
            began = time.monotonic()
            assert silent.recv(1) == b""
            assert 15 < time.monotonic() - began < 25


@pytest.mark.faults
@pytest.mark.fault("F28")
def test_many_listeners_miss_nothing(fleet: Production) -> None:
    """500 event streams, 100 of them dropped every second and resumed: no gap, no repeat, polls are answered."""
    with fleet.api() as http, fleet.worker():
        job = fleet.submit(steps=100, sleep=0.1)
        fleet.in_scene(job["id"])
        port, listeners = http.base_url.port or 80, [Listener([]) for _ in range(LISTENERS)]
        polls = [request("GET", f"/v1/jobs/{job['id']}")] * 50

        async def everything() -> int:
            kinds = [_broken_off if index % 5 == 0 else listen for index in range(LISTENERS)]
            streams = [kind(port, job["id"], one) for kind, one in zip(kinds, listeners, strict=True)]
            answers, *_ = await asyncio.gather(open_loop(port, polls, 5), *streams)
            assert len(answers.seconds) == len(polls)
            return answers.refused

        assert asyncio.run(everything()) == 0
        done = http.get(f"/v1/jobs/{job['id']}").json()
        assert (done["state"], done["attempt"]) == ("succeeded", 1)
        heard = {tuple(number for number, _ in listener.ids) for listener in listeners}
        (numbers,) = heard
        assert numbers == tuple(range(1, len(numbers) + 1))
        assert len(numbers) > 20
