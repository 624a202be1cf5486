"""The run folder of an attempt and its copy in the bucket, for workers without a disk in common."""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from api.db import queries
from api.db.models import Artifact, Job
from api.db.session import Sessions
from api.jobs.files import Files
from api.settings import Settings
from worker.lease import Lease
from worker.snapshot import PARALLEL, Entry, Snapshot, file_key, log_key, pull, store_snapshot

log = logging.getLogger(__name__)

LOOKS = 5  # at a folder that changes, until it is tried again later
GROWING = "events.jsonl"  # the one file that is appended to; all others are replaced as a whole
LOG_SECONDS = 2.0
AWAY_SECONDS = 2.0  # between two tries while the bucket is away
Look = tuple[int, int, int]  # inode, time of change, size


class Mirror:
    """Copies a run folder to the bucket while the attempt goes on. Use as a context manager around the attempt.

    On a storage folder, where the run folder is the stored one, it does nothing.
    """

    def __init__(self, job: Job, files: Files, settings: Settings, sessions: Sessions, lease: Lease) -> None:
        self._job_id, self._attempt = job.id, job.attempt
        self._files, self._settings, self._sessions, self._lease = files, settings, sessions, lease
        self._bucket = files.bucket
        self._run = files.run(job.id)
        self._looked: dict[str, tuple[Look, Entry]] = {}
        self._keys: dict[str, str] = {}  # of every object that we know of, by hash
        self._stored: Snapshot = {}
        self._log_size = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_publishing, name=f"mirror-{job.id}", daemon=True)

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        """The last of the log, and nothing of the job stays on this disk."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._bucket is None:
            return
        try:
            self._publish_log()
            with self._sessions() as session:
                job = queries.job(session, self._job_id)
            if job is None or job.delete_requested_at is not None:
                self._bucket.remove([log_key(self._job_id, self._attempt)])
        except (OSError, SQLAlchemyError) as error:
            log.warning("job %s: the end of its log is not stored: %s", self._job_id, error)
        for folder in (self._files.root / "jobs", self._files.uploads):
            shutil.rmtree(folder, ignore_errors=True)

    def begin(self, parent_id: str | None, warn: Callable[[str], None]) -> None:
        """Fetch what earlier attempts, and the job whose scene is rendered, have left; then follow the folder."""
        if self._bucket is None:
            return
        self._stored = pull(self._bucket, self._job_id, self._run, warn)
        self._keys = {entry.sha256: entry.key for entry in self._stored.values()}
        if parent_id:
            pull(self._bucket, parent_id, self._files.run(parent_id), warn)
        self._thread.start()

    def keep(self, rows: Iterable[Artifact]) -> list[Artifact]:
        """The rows whose files are stored, or could be now, with their objects."""
        rows = list(rows)
        if self._bucket is None:
            return rows
        for row in rows:
            try:
                with self._lock:
                    entry = self._store(row.path)
            except OSError as error:
                log.warning("job %s: %s is not stored: %s", self._job_id, row.path, error)
                continue
            row.object_key = entry.key if entry and entry.sha256 == row.sha256 else None
        return [row for row in rows if row.object_key]

    def finish(self, needed: bool, stopping: threading.Event, patience: float) -> None:
        """Store the folder as the child has left it, and remove what is not of it.

        While database or bucket are away it waits: `needed` results as long as the attempt is ours, all else for
        `patience` seconds, as does a worker that is stopping. Raises OSError or SQLAlchemyError for needed ones then.
        """
        if self._bucket is None:
            return
        until = time.monotonic() + patience
        while True:
            try:
                if self.publish() or self._lease.wanted_stop() == "lost":
                    break
            except (OSError, SQLAlchemyError) as error:
                log.warning("job %s: the run is not stored yet: %s", self._job_id, error)
                if time.monotonic() > until and (not needed or stopping.is_set()):
                    if needed:
                        raise
                    return
            threading.Event().wait(AWAY_SECONDS)
        if self._lease.wanted_stop() != "lost":
            self._remove_others()

    def publish(self) -> bool:
        """Store what has changed. False if the folder would not hold still, or the attempt is not ours any more.

        Raises OSError if the bucket, SQLAlchemyError if the database does not answer.
        """
        assert self._bucket is not None
        with self._lock:
            snapshot = self._steady_state()
            if snapshot is None:
                return False
            if snapshot == self._stored:
                return True
            if not self._lease.renew():
                return False
            store_snapshot(self._bucket, self._job_id, self._attempt, snapshot)
            # the snapshot before stays whole: whoever has taken the job over meanwhile goes on from there
            kept = {entry.key for state in (snapshot, self._stored) for entry in state.values()}
            left = {digest: key for digest, key in self._keys.items() if key not in kept}
            self._keys = {digest: key for digest, key in self._keys.items() if digest not in left}
            self._bucket.remove(left.values())
            self._stored = snapshot
            return True

    def _steady_state(self) -> Snapshot | None:
        """All files of one moment: looked at before and after, none has changed. None if there was no such moment."""
        for _ in range(LOOKS):
            seen = _look(self._run)
            with ThreadPoolExecutor(PARALLEL) as pool:
                stored = dict(zip(seen, pool.map(self._store, seen), strict=True))
            again = _look(self._run)
            if _settled(again) == _settled(seen) and None not in stored.values():
                return {path: entry for path, entry in stored.items() if entry}
        return None

    def _store(self, path: str) -> Entry | None:
        """Have the bucket hold a file; None if it changed or went meanwhile."""
        assert self._bucket is not None
        try:
            file = (self._run / path).open("rb")
        except FileNotFoundError:
            return None
        with file:
            look = _of(os.fstat(file.fileno()))
            known = self._looked.get(path)
            if known and known[0] == look:
                return known[1]
            if path == GROWING:
                data: bytes | None = file.read(look[2])
                digest = hashlib.sha256(data or b"").hexdigest()
            else:
                data, digest = None, hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
            if digest not in self._keys:
                key = file_key(self._job_id, self._attempt, digest)
                self._bucket.put(key, file if data is None else data, digest)
                try:
                    if path != GROWING and _of((self._run / path).stat()) != look:
                        return None  # the object may be a mixture: it is not known, and replaced when it is needed
                except FileNotFoundError:
                    return None
                self._keys[digest] = key
        entry = Entry(look[2], digest, self._keys[digest])
        self._looked[path] = (look, entry)
        return entry

    def _remove_others(self) -> None:
        """Objects and snapshots that are not of the last state: of killed attempts, and of files that have gone."""
        assert self._bucket is not None
        kept = {entry.key for entry in self._stored.values()}
        kept.add(f"jobs/{self._job_id}/snapshots/{self._attempt:06d}.json")
        try:
            found = [
                o.key for part in ("files", "snapshots") for o in self._bucket.objects(f"jobs/{self._job_id}/{part}/")
            ]
            self._bucket.remove(key for key in found if key not in kept)
            self._bucket.abort(self._bucket.unfinished(f"jobs/{self._job_id}/"))
        except OSError as error:
            log.warning("job %s: some objects that nobody needs are left: %s", self._job_id, error)

    def _publish_log(self) -> None:
        assert self._bucket is not None
        file = self._files.log(self._job_id)
        size = file.stat().st_size if file.exists() else 0
        if size != self._log_size:
            data = file.read_bytes()
            self._bucket.put(log_key(self._job_id, self._attempt), data, hashlib.sha256(data).hexdigest())
            self._log_size = size

    def _keep_publishing(self) -> None:
        run_at = log_at = 0.0
        while not self._ended.wait(min(0.2, self._settings.publish_seconds)):
            try:
                if time.monotonic() >= log_at:
                    self._publish_log()
                    log_at = time.monotonic() + LOG_SECONDS + self._log_size / 2**20  # of a long one: at most 1 MB/s
                if time.monotonic() >= run_at:
                    self.publish()
                    run_at = time.monotonic() + self._settings.publish_seconds
            except (OSError, SQLAlchemyError) as error:
                log.warning("job %s: not stored now, trying again: %s", self._job_id, error)
                self._ended.wait(AWAY_SECONDS)


def _look(folder: Path) -> dict[str, Look]:
    """Every finished file: no hidden ones, no links, as in the manifest."""
    seen = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and not path.is_symlink():
                try:
                    seen[path.relative_to(folder).as_posix()] = _of(path.stat())
                except FileNotFoundError:
                    continue
    return seen


def _of(status: os.stat_result) -> Look:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _settled(seen: dict[str, Look]) -> dict[str, Look]:
    return {path: look for path, look in seen.items() if path != GROWING}
