"""Uploads: received in a stream, then judged by a child process, apart from the API."""

import asyncio
import errno
import hashlib
import json
import logging
import mimetypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update
from starlette.concurrency import run_in_threadpool

from api.db import queries, tallies
from api.db.models import Upload, now
from api.db.session import Sessions
from api.errors import ServiceError
from api.jobs.files import Files, new_id
from api.logs import carrying
from api.settings import Settings

log = logging.getLogger(__name__)

BUFFER = 1 << 20
_ENGINE_LIMITS = ("decode_memory_bytes", "decode_seconds", "decode_file_bytes")
_CREDENTIALS = tuple(f"DPDY_{name}" for name in ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "SECRET", "API_KEY"))
_CREDENTIALS += ("PGPASSWORD", "AWS_")
_SCRATCH = ".check."  # prefix of the folder for a check's temporary files
INPUT_ERRORS = (2, 3)  # exit codes with which `inspect` says what is wrong with the file


@dataclass(frozen=True)
class Received:
    """A file on the disk under its temporary name."""

    part: Path
    size: int
    sha256: str


async def receive(stream: AsyncIterator[bytes], part: Path, settings: Settings) -> Received:
    """Write a body to `part`, counting and hashing; nothing is left of one that breaks off, is empty or too large."""
    digest, size, buffer = hashlib.sha256(), 0, bytearray()
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            async for chunk in _patiently(stream, settings.upload_idle_seconds):
                size += len(chunk)
                if size > settings.max_upload_bytes:
                    raise too_large(settings.max_upload_bytes)
                buffer += chunk
                if len(buffer) >= BUFFER:
                    await run_in_threadpool(_store, file, digest, bytes(buffer))
                    buffer.clear()
            await run_in_threadpool(_store, file, digest, bytes(buffer))
            if size == 0:
                raise ServiceError(422, "upload-empty", "The upload is empty", "the body has 0 bytes", "send the file")
            await run_in_threadpool(os.fsync, file.fileno())
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ServiceError(
                507, "storage-full", "The storage is full", "the disk is full", "try again later", retryable=True
            ) from error
        raise
    return Received(part, size, digest.hexdigest())


def _store(file: Any, digest: Any, data: bytes) -> None:
    file.write(data)
    digest.update(data)


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


def too_large(limit: int) -> ServiceError:
    return ServiceError(
        413, "upload-too-large", "The upload is too large", f"uploads may have {limit} bytes", "see /v1/info: limits"
    )


def admit(sessions: Sessions, files: Files, received: Received, filename: str, ttl_hours: float) -> Upload:
    """Give a received file its place and its row, to be checked next."""
    upload = Upload(
        id=new_id("upl"),
        filename=filename,
        size=received.size,
        sha256=received.sha256,
        media_type=mimetypes.guess_type(filename)[0] or "application/octet-stream",
        state="checking",
        created_at=now(),
        expires_at=now() + timedelta(hours=ttl_hours),
    )
    files.keep_upload(received.part, upload)
    try:
        with sessions.begin() as session:
            session.add(upload)
            tallies.count(session, {(tallies.UPLOAD_BYTES, ""): float(upload.size)})
    except BaseException:
        files.remove_upload(upload)
        raise
    return upload


class Checker:
    """Judges uploads in the background, one child process at a time."""

    def __init__(self, settings: Settings, sessions: Sessions, files: Files) -> None:
        self._settings = settings
        self._sessions = sessions
        self._files = files
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="check")
        self._closing = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def resume(self) -> None:
        """Take up the checks that the last process left unfinished."""
        abandoned = time.time() - 2 * self._settings.inspect_seconds  # younger ones may be another process's
        for left in self._files.root.glob(f"{_SCRATCH}*"):
            if left.stat().st_mtime < abandoned:
                shutil.rmtree(left, ignore_errors=True)
        with self._sessions() as session:
            waiting = queries.uploads_to_check(session)
        for upload_id in waiting:
            self.submit(upload_id)

    def submit(self, upload_id: str) -> None:
        """Check this upload soon."""
        self._pool.submit(carrying(self._check), upload_id)

    def close(self) -> None:
        """Stop; what is unfinished stays `checking` for the next start."""
        self._closing.set()
        if child := self._child:
            _kill_group(child)
        self._pool.shutdown(cancel_futures=True)

    def _check(self, upload_id: str) -> None:
        if self._closing.is_set():
            return
        try:
            with self._sessions() as session:
                upload = queries.upload(session, upload_id)
            if upload is None or upload.state != "checking" or upload.deleted_at:
                return
            verdict = self._inspect(self._files.fetch_upload(upload))
            if not self._closing.is_set():
                with self._sessions.begin() as session:
                    wanted = (Upload.id == upload_id, Upload.state == "checking")
                    session.execute(update(Upload).where(*wanted).values(**verdict))
                self._files.release_upload(upload)
        except Exception:
            log.exception("the check of upload %s broke off; it is taken up again at the next start", upload_id)

    def _inspect(self, file: Path) -> dict[str, Any]:
        """State, report and problem of an upload. What the child leaves, even killed, is removed."""
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._files.root, ignore_cleanup_errors=True) as scratch:
            return self._judged(file, child_environment(self._settings) | {"TMPDIR": scratch})

    def _judged(self, file: Path, environment: dict[str, str]) -> dict[str, Any]:
        command = [*self._settings.engine, "inspect", str(file), "--json"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        ) as child:
            self._child = child
            if self._closing.is_set():  # `close` came while the child started, and saw none
                _kill_group(child)
            try:
                output, errors = child.communicate(timeout=self._settings.inspect_seconds)
            except subprocess.TimeoutExpired:
                seconds = self._settings.inspect_seconds
                return _rejected(
                    "inspect-timeout", f"reading the file took more than {seconds:g} s", "send a shorter one"
                )
            finally:
                _kill_group(child)
                self._child = None
        document = _json_object(output)
        if child.returncode == 0 and document is not None:
            return {"state": "ready", "report": document}
        if child.returncode in INPUT_ERRORS and document is not None and "detail" in document:
            return {"state": "rejected", "problem": document}
        log.error("inspect ended with %s: %s", child.returncode, errors.decode(errors="replace")[-2000:])
        return _rejected("inspect-crashed", "reading the file crashed the decoder", "try another encoding of the video")


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of an engine child: with its limits, without the service's credentials."""
    given = {f"DPDY_{key.upper()}": str(getattr(settings, key)) for key in _ENGINE_LIMITS} | {"PYTHONUNBUFFERED": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith(_CREDENTIALS)} | given


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _json_object(output: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(output, parse_constant=lambda _: None)  # NaN is no JSON
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _rejected(type: str, detail: str, remedy: str) -> dict[str, Any]:
    problem = {"type": type, "title": "The capture cannot be used", "detail": detail, "remedy": remedy}
    return {"state": "rejected", "problem": problem | {"retryable": False}}
