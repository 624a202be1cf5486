"""Uploads and jobs on disk, under names that the server made. The user's names never reach the file system."""

import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from api.db.models import Artifact, Job, Upload, now
from api.errors import ServiceError
from api.jobs.stages import timestamp

CHUNK = 1 << 20


def new_id(prefix: str) -> str:
    """An opaque, unguessable id."""
    return f"{prefix}-{secrets.token_hex(10)}"


@dataclass(frozen=True)
class Files:
    """The storage folder: `uploads/ID.ext`, and of each job `jobs/ID/run/` and `jobs/ID/log.jsonl`."""

    root: Path
    min_free_bytes: int = 0

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    def upload(self, upload: Upload) -> Path:
        return self.uploads / f"{upload.id}{_suffix(upload.filename)}"

    def job(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id

    def run(self, job_id: str) -> Path:
        """The run folder of CONTRACT section 4."""
        return self.job(job_id) / "run"

    def log(self, job_id: str) -> Path:
        return self.job(job_id) / "log.jsonl"

    def check_space(self, wanted: int = 0) -> None:
        """Raise 507 if `wanted` more bytes would leave too little room on the disk."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free - wanted < self.min_free_bytes:
            raise ServiceError(
                507,
                "storage-full",
                "The storage is full",
                f"{free >> 20} MiB are free, {self.min_free_bytes >> 20} MiB must stay so",
                "delete jobs and uploads that are not needed",
                retryable=True,
            )

    def artifact(self, job_id: str, path: str) -> Path | None:
        """The file of an artifact, or None if it is not (or no longer) a regular file inside the run folder."""
        run = self.run(job_id).resolve()
        file = run.joinpath(*PurePosixPath(path).parts).resolve()
        return file if file.is_relative_to(run) and file.is_file() else None

    def remove_job(self, job: Job, artifacts: Iterable[Artifact]) -> dict[str, Any]:
        """Delete all files of a job; the receipt names each with its size and, where it was recorded, its hash."""
        folder = self.job(job.id)
        hashes = {artifact.path: artifact.sha256 for artifact in artifacts}
        removed: list[dict[str, Any]] = []
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
            relative = file.relative_to(folder).as_posix()
            digest = hashes.get(relative.removeprefix("run/"))
            removed.append({"path": relative, "size": file.stat().st_size, "sha256": digest})
        if folder.exists():
            shutil.rmtree(folder)
        total = sum(entry["size"] for entry in removed)
        return {
            "job_id": job.id,
            "deleted_at": timestamp(now()),
            "count": len(removed),
            "bytes": total,
            "files": removed,
        }


def _suffix(filename: str) -> str:
    """The user's suffix if it is harmless: readers of videos and archives look at it."""
    suffix = PurePosixPath(filename).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""


class _Pipe:
    """A write-only stream that keeps what was written until it is taken."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data


def stream_zip(members: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """The bytes of a zip of the files, made on the way; it only stores, as videos and pictures are compressed."""
    pipe = _Pipe()
    with ZipFile(pipe, "w", ZIP_STORED) as archive:  # type: ignore[call-overload]  # a stream without seek is enough
        for name, path in members:
            with path.open("rb") as source, archive.open(_zip_entry(name, path), "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield pipe.take()
    yield pipe.take()


def _zip_entry(name: str, path: Path) -> ZipInfo:
    entry = ZipInfo.from_file(path, name, strict_timestamps=False)
    entry.compress_type = ZIP_STORED
    return entry
