"""Bytes of a request on their way to the disk. What came is written, also of a request that breaks off."""

import asyncio
import errno
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.errors import ServiceError
from api.settings import Settings

T = TypeVar("T")
BUFFER = 1 << 20
FLUSH = 1 << 26  # bytes after which a long upload is flushed to the disk, so that its end is quick


@dataclass(frozen=True)
class Received:
    """A file on the disk under its temporary name."""

    part: Path
    size: int
    sha256: str


async def receive(
    stream: AsyncIterator[bytes], part: Path, settings: Settings, expected: bytes | None = None
) -> Received:
    """Write a whole body to `part`, counting and hashing; nothing is left of one that cannot be used.

    Raises ServiceError if it breaks off, stalls, is empty, too large or has another SHA-256 than `expected`.
    """
    digest = hashlib.sha256()
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with full_disk_told(), part.open("xb", buffering=0) as file:
            limit, idle = settings.max_upload_bytes, settings.upload_idle_seconds
            size = await write_stream(stream, file, limit, too_large(limit), idle, digest)
            if size == 0:
                raise empty()
            if expected is not None and digest.digest() != expected:
                detail = f"it arrived with the SHA-256 {digest.hexdigest()}, {expected.hex()} was announced"
                raise ServiceError(422, "upload-damaged", "The upload is damaged", detail, "send it again")
            await run_in_threadpool(os.fsync, file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Received(part, size, digest.hexdigest())


async def write_stream(
    stream: AsyncIterator[bytes],
    file: FileIO,
    limit: int,
    beyond: ServiceError,
    idle_seconds: float,
    digest: Any = None,
) -> int:
    """Append a body to `file`; returns its length. What came before an error is in the file and in the digest.

    Raises `beyond` above `limit` bytes, 408 after a silence, 400 if the client goes away, 410 if the file is deleted.
    """
    size, flushed, buffer = 0, 0, bytearray()
    try:
        async for chunk in _patiently(stream, idle_seconds):
            if size + len(chunk) > limit:
                raise beyond
            size += len(chunk)
            buffer += chunk
            if len(buffer) >= BUFFER:
                data = bytes(buffer)
                buffer.clear()
                await _finish_in_thread(lambda data=data: _store(file, digest, data))  # type: ignore[misc]
            if size - flushed >= FLUSH:
                flushed = size
                await _finish_in_thread(lambda: os.fdatasync(file.fileno()))
    except ClientDisconnect as error:
        raise ServiceError(400, "upload-broken", "The upload broke off", "the client went away") from error
    finally:
        _store(file, digest, bytes(buffer))
    return size


def lock(file: FileIO) -> None:
    """Hold a part for as long as it is open, against other requests of all processes. Raises 423 if it is held."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ServiceError(
            423,
            "upload-locked",
            "Another request writes to this upload",
            "one request at a time may send its bytes",
            "ask for the offset and go on from there when the other has ended",
            retryable=True,
            headers={"Retry-After": "2"},
        ) from error


def sync_folder(folder: Path) -> None:
    """Make names in it survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """A full disk as 507."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ServiceError(
            507, "storage-full", "The storage is full", "the disk is full", "try again later", retryable=True
        ) from error


def too_large(limit: int) -> ServiceError:
    return ServiceError(
        413, "upload-too-large", "The upload is too large", f"uploads may have {limit} bytes", "see /v1/info: limits"
    )


def empty() -> ServiceError:
    return ServiceError(422, "upload-empty", "The upload is empty", "the body has 0 bytes", "send the file")


def gone(upload_id: str) -> ServiceError:
    detail = f"upload {upload_id} was deleted, or its time was over"
    return ServiceError(410, "upload-gone", "The upload is gone", detail, "start a new one")


def _store(file: FileIO, digest: Any | None, data: bytes) -> None:
    if os.fstat(file.fileno()).st_nlink == 0:
        raise gone(Path(str(file.name)).stem)
    if digest:
        digest.update(data)
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


async def _finish_in_thread(work: Callable[[], T]) -> T:
    """Wait for blocking work to its end, even if the request is cancelled: it must not go on beside what follows."""
    task = asyncio.ensure_future(run_in_threadpool(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):
            await task
        raise


async def _patiently(stream: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    iterator = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            detail = f"no byte came for {idle_seconds:g} s"
            raise ServiceError(408, "upload-stalled", "The upload stalled", detail, retryable=True) from error
        yield chunk
