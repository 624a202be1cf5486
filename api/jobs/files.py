"""Uploads and jobs on disk and in the bucket, under names that the server made and never under the user's."""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from api.db.models import Artifact, Upload
from api.errors import ServiceError
from api.settings import Settings

if TYPE_CHECKING:
    from api.bucket import Bucket

CHUNK = 1 << 20


def new_id(prefix: str) -> str:
    """An opaque, unguessable id."""
    return f"{prefix}-{secrets.token_hex(10)}"


@dataclass(frozen=True)
class Stored:
    """The bytes of a finished file, wherever they are."""

    size: int
    modified: float  # seconds since 1970
    read: Callable[[int, int], Iterator[bytes]]
    """The bytes [start, stop). Opens it at once: what is deleted later is still read. Raises FileNotFoundError."""


@dataclass(frozen=True)
class Files:
    """`uploads/ID.ext`, and of each job `jobs/ID/run/` and `jobs/ID/log.jsonl`.

    Without a bucket, `root` is the storage folder that all processes share, and the worker runs jobs right in it. With
    one, `root` is this process's scratch: uploads pass through it, and the run of the job that the worker has now.
    """

    root: Path
    min_free_bytes: int = 0
    bucket: "Bucket | None" = None

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    def upload(self, upload: Upload) -> Path:
        """Its place on the disk; with a bucket only while somebody here works with it (`fetch_upload`)."""
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
        free = self.free_bytes()
        if free - wanted < self.min_free_bytes:
            raise ServiceError(
                507,
                "storage-full",
                "The storage is full",
                f"{free >> 20} MiB are free, {self.min_free_bytes >> 20} MiB must stay so",
                "delete jobs and uploads that are not needed",
                retryable=True,
            )

    def probe(self) -> None:
        """Raise OSError if the disk cannot be written or the bucket does not answer."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / ".probe").write_bytes(b"dpdy")  # it stays: the next probe writes the same file
        if self.bucket:
            self.bucket.check()

    # ---- uploads

    def part(self, upload_id: str) -> Path:
        """Where the bytes of an upload are before `keep_upload`, on the disk of the API process that receives them."""
        return self.uploads / f"{upload_id}.part"

    def keep_upload(self, part: Path, upload: Upload) -> None:
        """Give a received file its place. With a bucket the copy on this disk stays until `release_upload`."""
        if self.bucket:
            self.bucket.put(self._upload_key(upload), part.open("rb"), upload.sha256)
        part.replace(self.upload(upload))

    def fetch_upload(self, upload: Upload) -> Path:
        """The upload as a file on this disk. Raises FileNotFoundError or ValueError for one lost or damaged."""
        file = self.upload(upload)
        if self.bucket and not file.exists():
            self.bucket.fetch(self._upload_key(upload), file, upload.sha256)
        return file

    def release_upload(self, upload: Upload) -> None:
        """Nobody here works with it any more: with a bucket, its copy on this disk goes."""
        if self.bucket:
            self.upload(upload).unlink(missing_ok=True)

    def remove_upload(self, upload: Upload) -> None:
        """The part first: nobody can make the file of it any more when the file goes."""
        self.part(upload.id).unlink(missing_ok=True)
        self.upload(upload).unlink(missing_ok=True)
        if self.bucket:
            self.bucket.remove([self._upload_key(upload)])

    def stored_upload(self, upload: Upload) -> Stored | None:
        """The bytes of an upload, or None if they are gone."""
        return self._object(self._upload_key(upload)) if self.bucket else _file(self.upload(upload))

    def _upload_key(self, upload: Upload) -> str:
        return f"uploads/{upload.id}{_suffix(upload.filename)}"

    # ---- jobs

    def artifact(self, row: Artifact) -> Stored | None:
        """The bytes of an artifact, or None if they are gone, or no regular file inside the run folder."""
        if self.bucket:
            return self._object(row.object_key) if row.object_key else None
        run = self.run(row.job_id).resolve()
        file = run.joinpath(*PurePosixPath(row.path).parts).resolve()
        return _file(file) if file.is_relative_to(run) else None

    def _object(self, key: str) -> Stored | None:
        assert self.bucket is not None
        bucket, found = self.bucket, self.bucket.stat(key)
        if found is None:
            return None
        return Stored(found.size, found.modified.timestamp(), lambda start, stop: bucket.read(key, start, stop))

    def free_bytes(self) -> int:
        """What the disk still takes."""
        return shutil.disk_usage(self.root).free

    def job_files(self, job_id: str, artifacts: Iterable[Artifact]) -> Iterator[tuple[str, Stored]]:
        """All that is stored of a job, its log and what no row names included: paths as in its folder, and bytes."""
        folder = self.job(job_id)
        for path in sorted(path for path in folder.rglob("*") if not path.is_symlink()):
            if stored := _file(path):
                yield path.relative_to(folder).as_posix(), stored
        if self.bucket:
            rows, prefix = list(artifacts), f"jobs/{job_id}/"
            for found in list(self.bucket.objects(prefix)):
                if stored := self._object(found.key):
                    names = [f"run/{row.path}" for row in rows if row.object_key == found.key]  # equal files share one
                    for name in names or [found.key.removeprefix(prefix)]:
                        yield name, stored

    def remove_job(self, job_id: str) -> None:
        """Delete all files of a job; others may be doing the same."""
        folder = self.job(job_id)
        while folder.exists():
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
        if self.bucket:
            prefix = f"jobs/{job_id}/"
            self.bucket.abort(self.bucket.unfinished(prefix))
            self.bucket.remove([found.key for found in self.bucket.objects(prefix)])


def make_files(settings: Settings, owner: str = "api") -> Files:
    """The storage of the settings. With a bucket each `owner` of this machine has a scratch folder of its own."""
    if settings.bucket_url is None:
        return Files(settings.storage, settings.min_free_bytes)
    from api.bucket import Bucket  # boto3 takes time and memory that a folder does not need

    return Files(settings.scratch_folder / owner, settings.min_free_bytes, Bucket(settings.bucket_url))


def claim_scratch(files: Files) -> int | None:
    """Hold this scratch for as long as the process lives, and remove those whose processes are gone."""
    if files.bucket is None:
        return None
    files.root.mkdir(parents=True, exist_ok=True)
    mine = _lock(files.root)
    for other in files.root.parent.iterdir():
        if other != files.root and (other / ".owner").exists() and (lock := _lock(other)) is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(lock)
    return mine


def _lock(folder: Path) -> int | None:
    """A lock on a scratch folder; None if its owner lives."""
    with suppress(OSError):
        descriptor = os.open(folder / ".owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None


def _file(path: Path) -> Stored | None:
    if not path.is_file():
        return None
    status = path.stat()

    def read(start: int, stop: int) -> Iterator[bytes]:
        return _chunks(path, start, stop)

    return Stored(status.st_size, status.st_mtime, read)


def _chunks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    file = path.open("rb")
    file.seek(start)

    def chunks() -> Iterator[bytes]:
        left = stop - start
        with file:
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    return chunks()


def _suffix(filename: str) -> str:
    """The user's suffix if it is harmless: readers of videos and archives look at it."""
    suffix = PurePosixPath(filename).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""
