"""What takes room on the disk and is needed by nobody: told apart from what is in use, and removed."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import select

from api.bucket import Bucket
from api.db import queries
from api.db.models import Job, Upload, now
from api.db.session import Sessions
from api.errors import ServiceError
from api.jobs.files import Files
from api.jobs.removal import remove_job, remove_upload, request_overdue
from api.settings import Settings

IN_FLIGHT_SECONDS = 3600.0  # what is younger may be about to get its row


@dataclass(frozen=True)
class Waste:
    """One thing that can go; `size` in bytes."""

    kind: Literal["job", "upload", "file"]
    name: str
    size: int
    why: str


def collect(sessions: Sessions, files: Files, settings: Settings, dry_run: bool) -> list[Waste]:
    """The waste that is there (`dry_run`), or that was removed. Safe beside workers, which remove most of it too."""
    found = [*_jobs(sessions, files, settings), *_uploads(sessions), *_orphans(sessions, files)]
    if dry_run:
        return found
    if settings.retention_days is not None:
        request_overdue(sessions, settings.retention_days)
    return [waste for waste in found if _remove(waste, sessions, files)]


def _remove(waste: Waste, sessions: Sessions, files: Files) -> bool:
    if waste.kind == "job":
        return remove_job(sessions, files, waste.name)
    if waste.kind == "upload":
        with suppress(ServiceError):  # a job has begun to need it
            remove_upload(sessions, files, waste.name, expired=True)
            return True
        return False
    if files.bucket:
        files.bucket.remove([found.key for found in files.bucket.objects(waste.name)])
        return True
    path = files.root / waste.name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()


def _jobs(sessions: Sessions, files: Files, settings: Settings) -> Iterator[Waste]:
    with sessions() as session:
        unfinished = queries.jobs_to_delete(session)
        days = settings.retention_days
        overdue = queries.jobs_past_retention(session, days) if days is not None else []
    for job_id in unfinished:
        yield Waste("job", job_id, _job_size(files, job_id), "its deletion broke off")
    for job_id in overdue:
        yield Waste("job", job_id, _job_size(files, job_id), f"it ended more than {days:g} days ago")


def _uploads(sessions: Sessions) -> Iterator[Waste]:
    with sessions() as session:
        expired = queries.expired_uploads(session)
    for upload in expired:
        yield Waste("upload", upload.id, upload.size, "its time is over")


def _orphans(sessions: Sessions, files: Files) -> Iterator[Waste]:
    """What no row knows. The storage is looked at before the rows: what got its row meanwhile has one then."""
    stored = _in_bucket(files.bucket) if files.bucket else _on_disk(files)
    with sessions() as session:
        jobs = {f"jobs/{job_id}" for job_id in session.scalars(select(Job.id).where(Job.deleted_at.is_(None)))}
        kept = session.scalars(select(Upload).where(Upload.deleted_at.is_(None))).all()
        uploads = {f"uploads/{path.name}" for row in kept for path in (files.upload(row), files.part(row.id))}
    for name, size in sorted(stored.items()):
        if name not in jobs and name not in uploads:
            yield Waste("file", name, size, "no row of the database knows it")


def _on_disk(files: Files) -> dict[str, int]:
    """Job folders, uploads, and what checks left, that nobody has touched for a while, with their sizes."""
    old = time.time() - IN_FLIGHT_SECONDS
    paths = [*(files.root / "jobs").glob("*"), *files.uploads.glob("*"), *files.root.glob(".check.*")]
    return {path.relative_to(files.root).as_posix(): _size(path) for path in paths if path.lstat().st_mtime < old}


def _in_bucket(bucket: Bucket) -> dict[str, int]:
    """The same of a bucket: `jobs/ID` and `uploads/NAME`."""
    old, sizes, young = now() - timedelta(seconds=IN_FLIGHT_SECONDS), Counter[str](), set[str]()
    for prefix in ("jobs/", "uploads/"):
        for found in bucket.objects(prefix):
            name = "/".join(found.key.split("/")[:2])
            sizes[name] += found.size
            if found.modified >= old:
                young.add(name)
    return {name: size for name, size in sizes.items() if name not in young}


def _job_size(files: Files, job_id: str) -> int:
    return sum(stored.size for _, stored in files.job_files(job_id, []))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return path.lstat().st_size if path.exists() else 0
