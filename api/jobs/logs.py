"""The log of a job: JSON lines in a file; a cursor is a byte offset between two lines."""

import io
import json
import logging
import re
import threading
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from api.db.models import now
from api.jobs.files import Files
from api.jobs.stages import timestamp

log = logging.getLogger(__name__)

LINE_LIMIT = 4000
ATTEMPT = 1 << 40  # cursors of a job in a bucket: attempt times this, plus the offset
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class JobLog:
    """Appends to the log of one attempt, up to a size. Safe to use from several threads."""

    def __init__(self, path: Path, attempt: int, limit: int) -> None:
        self._path = path
        self._attempt = attempt
        self._limit = limit
        self._lock = threading.Lock()
        self._size = path.stat().st_size if path.exists() else 0

    def write(self, text: str, source: str = "engine") -> None:
        """Add one line, without terminal codes. `source`: engine (the child) or worker."""
        clean = _CONTROL.sub("", text.rstrip("\r\n").rpartition("\r")[2])[:LINE_LIMIT]
        with self._lock:
            if self._size >= self._limit:
                return
            line = self._line(clean, source)
            if self._size + len(line) > self._limit:
                line = self._line("the log is full: later lines are not kept", "worker")
                self._limit = 0
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.write(line)
            except OSError as error:  # a full disk must not end the run for a line of its log
                log.warning("a line of %s is lost: %s", self._path, error)
                return
            self._size += len(line)

    def _line(self, text: str, source: str) -> bytes:
        entry = {"time": timestamp(now()), "attempt": self._attempt, "source": source, "text": text}
        return json.dumps(entry).encode() + b"\n"


def read_job_log(files: Files, job_id: str, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The log of a job, as `read_log`. In a bucket each attempt has a log of its own; the cursor then holds both."""
    if files.bucket is None:
        return read_log(files.log(job_id), after, limit)
    attempt, offset = divmod(after, ATTEMPT)
    lines: list[dict[str, Any]] = []
    for found in files.bucket.objects(f"jobs/{job_id}/log/"):
        number = int(PurePosixPath(found.key).stem)
        if number < attempt or len(lines) == limit:
            continue
        begin = min(offset, found.size) if number == attempt else 0
        with suppress(FileNotFoundError):
            text = io.BytesIO(b"".join(files.bucket.read(found.key, begin, found.size)))
            more, read = _lines(text, limit - len(lines))
            lines, after = lines + more, number * ATTEMPT + begin + read
    return lines, after


def read_log(path: Path, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Up to `limit` lines behind byte `after`, and the cursor behind the last of them."""
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        file.seek(min(after, path.stat().st_size))  # no file system seeks as far as a cursor may say
        lines, read = _lines(file, limit)
    return lines, after + read


def _lines(file: IO[bytes], limit: int) -> tuple[list[dict[str, Any]], int]:
    """Up to `limit` whole lines, and the number of bytes to behind the last of them."""
    lines: list[dict[str, Any]] = []
    read = 0
    while len(lines) < limit and (line := file.readline()).endswith(b"\n"):
        read += len(line)
        try:
            lines.append(json.loads(line))
        except ValueError:  # a cursor that is not between two lines, or a line torn by a killed worker
            continue
    return lines, read
