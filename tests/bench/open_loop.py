"""HTTP/1.1 clients that cost little: requests at fixed times whatever the answers do, and event streams."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

KEPT_SECONDS = 3.0  # the server closes a connection that was idle for 5 s


@dataclass
class Answers:
    """Seconds from when each request was due to its last byte, so that a queue of them is counted; and refusals."""

    seconds: list[float]
    refused: int

    def row(self) -> str:
        """p50, p95, p99 in milliseconds."""
        cuts = statistics.quantiles(self.seconds, n=100)
        return "".join(f"{cuts[share - 1] * 1e3:>10.1f}" for share in (50, 95, 99))


def request(method: str, path: str, body: object = None) -> bytes:
    """One request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body).encode()
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, "Content-Type: application/json", "", ""]).encode() + content


async def open_loop(port: int, requests: Sequence[bytes], rate: float) -> Answers:
    """Send each request when it is due, over a connection that is free or a new one."""
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
    answers = Answers([], 0)
    began = time.perf_counter()

    async def one(number: int, message: bytes) -> None:
        due = began + number / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        while free and free[0][2] < time.perf_counter() - KEPT_SECONDS:
            free.pop(0)[1].close()
        reader, writer = free.pop()[:2] if free else await asyncio.open_connection("127.0.0.1", port)
        status = await _exchange(reader, writer, message)
        answers.seconds.append(time.perf_counter() - due)
        answers.refused += status >= 400
        free.append((reader, writer, time.perf_counter()))

    async with asyncio.TaskGroup() as group:
        for number, message in enumerate(requests):
            group.create_task(one(number, message))
    for _, writer, _ in free:
        writer.close()
    return answers


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> int:
    """Send and read to the end; the status. The service answers these with a Content-Length."""
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])


@dataclass
class Listener:
    """What one event stream has brought: the ids of events with the time of their arrival, and pings."""

    ids: list[tuple[int, float]]
    pings: int = 0


async def listen(port: int, job_id: str, listener: Listener, after: int = 0) -> None:
    """Read a stream to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: {after}\r\n\r\n"
    writer.write(head.encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"id: "):
                listener.ids.append((int(line[4:]), time.perf_counter()))
            listener.pings += line.startswith(b": ping")
            if line == b"0\r\n":  # the last chunk
                return
    finally:
        writer.close()
