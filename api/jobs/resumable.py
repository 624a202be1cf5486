"""Resumable uploads: a row in state `receiving`, and a part on this machine's disk whose length is the offset."""

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from io import FileIO
from typing import Any

from sqlalchemy import update
from starlette.concurrency import run_in_threadpool

from api.db import queries, tallies
from api.db.clock import database_now
from api.db.models import Upload, now
from api.db.session import Sessions
from api.errors import ServiceError, not_found
from api.jobs.files import Files, new_id
from api.jobs.receiving import full_disk_told, gone, lock, sync_folder, write_stream
from api.jobs.uploads import guess_media_type

IDLE_SECONDS = 15.0  # of silence, then the lock is free: a client that was cut off goes on with another request


@dataclass(frozen=True)
class Checksum:
    """Of the body of one request."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True)
class Resumable:
    """The resumable uploads of one API process."""

    sessions: Sessions
    files: Files
    part_hours: float
    ttl_hours: float

    def create(self, filename: str, size: int, expected: str | None, metadata: str) -> Upload:
        """An empty part and its row. `expected`, a SHA-256, is compared when all bytes are there."""
        upload = Upload(
            id=new_id("upl"),
            filename=filename,
            size=size,
            sha256="",
            expected_sha256=expected,
            tus_metadata=metadata or None,
            media_type=guess_media_type(filename),
            state="receiving",
            created_at=now(),
            expires_at=now() + timedelta(hours=self.part_hours),
        )
        part = self.files.part(upload.id)
        part.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_told():
            part.touch(exist_ok=False)
            sync_folder(part.parent)
        try:
            with self.sessions.begin() as session:
                session.add(upload)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return upload

    def find(self, upload_id: str) -> Upload:
        """An upload that is not deleted and whose time is not over. Raises 404 and 410."""
        with self.sessions() as session:
            upload = queries.upload(session, upload_id)
            if upload is None:
                raise not_found("upload", upload_id)
            if upload.deleted_at or upload.expires_at <= database_now(session):
                raise gone(upload_id)
        return upload

    def offset(self, upload: Upload) -> int:
        """How many of its bytes are stored."""
        if upload.state != "receiving":
            return upload.size
        try:
            stored = self.files.part(upload.id).stat().st_size
        except FileNotFoundError:
            raise gone(upload.id) from None
        return stored if upload.unverified_from is None else min(stored, upload.unverified_from)

    async def append(
        self, upload: Upload, offset: int, stream: AsyncIterator[bytes], checksum: Checksum | None
    ) -> tuple[int, Upload]:
        """Write a body at `offset`; returns the offset after it, which survives a loss of power, and the row.

        Of a body that breaks off, all that came is kept, unless it has a checksum: it can no more be compared.
        """
        file, upload = await run_in_threadpool(self._open, upload.id, offset, checksum is not None)
        with file, full_disk_told():
            digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
            beyond = too_long(upload)
            try:
                came = await write_stream(stream, file, upload.size - offset, beyond, IDLE_SECONDS, digest)
                if checksum and digest and digest.digest() != checksum.digest:
                    detail = f"the {checksum.algorithm} of the {came} bytes that came is another one"
                    raise ServiceError(460, "checksum-mismatch", "The chunk is damaged", detail, "send it again")
            except BaseException as error:
                if checksum or error is beyond:
                    file.truncate(offset)
                raise
            await run_in_threadpool(os.fsync, file.fileno())
            if checksum:
                await run_in_threadpool(self._change, upload.id, unverified_from=None)
        return offset + came, upload

    def complete(self, upload: Upload) -> bool:
        """All bytes are there: they are to be checked next. False if that is known already, or it was deleted."""
        return self._change(
            upload.id, upload.size, state="checking", expires_at=now() + timedelta(hours=self.ttl_hours)
        )

    def _open(self, upload_id: str, offset: int, checked: bool) -> tuple[FileIO, Upload]:
        """The part, locked, with its end at `offset`, and its row, whose time begins anew."""
        try:
            file = FileIO(self.files.part(upload_id), "ab", opener=_open_existing)
        except FileNotFoundError:
            raise gone(upload_id) from None
        try:
            lock(file)
            upload = self.find(upload_id)
            have = self.offset(upload)
            if upload.state != "receiving" or offset != have:
                raise wrong_offset(upload_id, have)
            file.truncate(have)
            expires = now() + timedelta(hours=self.part_hours)
            if not self._change(upload_id, expires_at=expires, unverified_from=offset if checked else None):
                raise gone(upload_id)
            upload.expires_at = expires
            return file, upload
        except BaseException:
            file.close()
            raise

    def _change(self, upload_id: str, received: int = 0, **values: Any) -> bool:
        """Change an upload that is being received; False if it is none any more. `received` bytes are counted."""
        with self.sessions.begin() as session:
            receiving = (Upload.id == upload_id, Upload.state == "receiving", Upload.deleted_at.is_(None))
            in_time = Upload.expires_at > database_now(session)
            changed = session.execute(update(Upload).where(*receiving, in_time).values(**values))
            done = bool(changed.rowcount)  # type: ignore[attr-defined]
            if done and received:
                tallies.count(session, {(tallies.UPLOAD_BYTES, ""): float(received)})
        return done


def too_long(upload: Upload) -> ServiceError:
    detail = f"upload {upload.id} was announced with {upload.size} bytes"
    return ServiceError(413, "upload-too-long", "These are more bytes than were announced", detail, "start a new one")


def wrong_offset(upload_id: str, have: int) -> ServiceError:
    detail, headers = f"upload {upload_id} goes on at byte {have}", {"Upload-Offset": str(have)}
    return ServiceError(409, "offset-mismatch", "The offset is another", detail, "send from there", headers=headers)


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT | os.O_CLOEXEC)
