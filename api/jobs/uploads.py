"""Uploads that were received: their rows, and the check by a child process, apart from the API."""

import hashlib
import json
import logging
import mimetypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.exc import SQLAlchemyError

from api.db import queries, tallies
from api.db.models import Upload, now
from api.db.session import Sessions
from api.errors import invalid
from api.jobs.files import Files
from api.jobs.receiving import BUFFER, Received
from api.logs import carrying
from api.settings import Settings

log = logging.getLogger(__name__)

_ENGINE_LIMITS = ("decode_memory_bytes", "decode_seconds", "decode_file_bytes")
_CREDENTIALS = tuple(f"DPDY_{name}" for name in ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "SECRET", "API_KEY"))
_CREDENTIALS += ("PGPASSWORD", "AWS_")
_SCRATCH = ".check."  # prefix of the folder for a check's temporary files
_PAUSE = 5.0  # seconds before a check is tried again that the database or the storage did not allow
INPUT_ERRORS = (2, 3)  # exit codes with which `inspect` says what is wrong with the file


def admit(sessions: Sessions, files: Files, received: Received, filename: str, ttl_hours: float) -> Upload:
    """Give a received part, whose name is its id, its row and then its place. Nothing is left where one cannot be had.

    Of a process that is killed between them, the next one's checker gives it its place.
    """
    upload = Upload(
        id=received.part.stem,
        filename=filename,
        size=received.size,
        sha256=received.sha256,
        media_type=guess_media_type(filename),
        state="checking",
        created_at=now(),
        expires_at=now() + timedelta(hours=ttl_hours),
    )
    try:
        with sessions.begin() as session:
            session.add(upload)
            tallies.count(session, {(tallies.UPLOAD_BYTES, ""): float(upload.size)})
        try:
            files.keep_upload(received.part, upload)
        except BaseException:
            with sessions.begin() as session:
                session.execute(delete(Upload).where(Upload.id == upload.id))
            raise
    except BaseException:
        received.part.unlink(missing_ok=True)
        raise
    return upload


def guess_media_type(filename: str) -> str:
    return mimetypes.guess_type(filename)[0] or "application/octet-stream"


def clean_filename(filename: str) -> str:
    """The name as text: its last part, without control characters."""
    last = re.split(r"[\\/]", filename)[-1].strip()
    cleaned = "".join(character for character in last if character.isprintable())[:255]
    if cleaned in ("", ".", ".."):
        raise invalid([{"field": "filename", "detail": "give the file's name, for example ?filename=video.mp4"}])
    return cleaned


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
            if upload is None or upload.state != "checking":
                return
            if upload.deleted_at:  # perhaps while it was given its place
                self._files.remove_upload(upload)
                return
            if not self._settle(upload):
                return
            verdict = _damage(upload) or self._inspect(self._files.fetch_upload(upload))
            if self._closing.is_set():
                return
            if self._change(upload, **verdict):
                self._files.release_upload(upload)
            else:
                self._files.remove_upload(upload)  # deleted while it was checked
        except (SQLAlchemyError, OSError) as error:
            log.warning("the check of upload %s broke off (%s); it is tried again", upload_id, error)
            if not self._closing.wait(_PAUSE):
                self.submit(upload_id)
        except Exception:
            log.exception("the check of upload %s broke off; it is taken up again at the next start", upload_id)

    def _settle(self, upload: Upload) -> bool:
        """Give a received file its place; False if there is none to check. May break off and be repeated anywhere."""
        part = self._files.part(upload.id)
        if part.exists():
            if not upload.sha256:  # it came in several requests: what counts is what lies on the disk
                upload.sha256 = self._hash(part)
                if not self._change(upload, sha256=upload.sha256):
                    return False
            self._files.keep_upload(part, upload)
        elif self._files.stored_upload(upload) is None:
            log.warning("upload %s is to be checked, but its bytes are not on this machine", upload.id)
            return False
        return True

    def _hash(self, file: Path) -> str:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(BUFFER):
                digest.update(chunk)
                if self._closing.is_set():
                    raise InterruptedError("the service stops")
        return digest.hexdigest()

    def _change(self, upload: Upload, **values: Any) -> bool:
        """Change an upload that is being checked; False if it is none any more."""
        with self._sessions.begin() as session:
            checking = (Upload.id == upload.id, Upload.state == "checking", Upload.deleted_at.is_(None))
            changed = session.execute(update(Upload).where(*checking).values(**values))
        return bool(changed.rowcount)  # type: ignore[attr-defined]

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


def _damage(upload: Upload) -> dict[str, Any] | None:
    if upload.expected_sha256 in (None, upload.sha256):
        return None
    detail = f"it arrived with the SHA-256 {upload.sha256}, {upload.expected_sha256} was announced"
    return _rejected("upload-damaged", detail, "send it again", "The upload is damaged", retryable=True)


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


def _rejected(
    type: str, detail: str, remedy: str, title: str = "The capture cannot be used", retryable: bool = False
) -> dict[str, Any]:
    problem = {"type": type, "title": title, "detail": detail, "remedy": remedy, "retryable": retryable}
    return {"state": "rejected", "problem": problem}
