"""The state of a run folder in the bucket: `jobs/ID/snapshots/ATTEMPT.json` names the objects of every file.

Objects lie under `jobs/ID/files/ATTEMPT/SHA256` and never change; a snapshot is replaced as a whole, only by its own
attempt. So the newest snapshot of the highest attempt is always a state that the folder really had, and what a worker
that lost its lease still writes is below the number that counts.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # boto3 is loaded only where there is a bucket
    from api.bucket import Bucket


PARALLEL = 8


@dataclass(frozen=True)
class Entry:
    """A file of the run folder and the object that holds its bytes."""

    size: int
    sha256: str
    key: str


Snapshot = dict[str, Entry]  # by path, relative to the run folder


def file_key(job_id: str, attempt: int, digest: str) -> str:
    """The object of a file that this attempt stored."""
    return f"jobs/{job_id}/files/{attempt:06d}/{digest}"


def log_key(job_id: str, attempt: int) -> str:
    """The object of an attempt's log."""
    return f"jobs/{job_id}/log/{attempt:06d}.jsonl"


def store_snapshot(bucket: "Bucket", job_id: str, attempt: int, snapshot: Snapshot) -> None:
    """Replace the attempt's snapshot."""
    files = {path: asdict(entry) for path, entry in sorted(snapshot.items())}
    body = json.dumps({"attempt": attempt, "files": files}).encode()
    bucket.put(f"jobs/{job_id}/snapshots/{attempt:06d}.json", body, sha256(body).hexdigest())


def newest_snapshot(bucket: "Bucket", job_id: str) -> Snapshot:
    """That of the highest attempt; empty if there is none."""
    keys = [found.key for found in bucket.objects(f"jobs/{job_id}/snapshots/")]
    if not keys:
        return {}
    files = json.loads(bucket.read_all(max(keys)))["files"]
    return {path: Entry(**entry) for path, entry in files.items()}


def pull(bucket: "Bucket", job_id: str, folder: Path, warn: Callable[[str], None]) -> Snapshot:
    """Bring `folder` to the job's newest state, every file with its hash verified; returns that state.

    `warn` hears of a state that is damaged: the folder is then empty, and the run begins anew.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        snapshot = newest_snapshot(bucket, job_id)
        with ThreadPoolExecutor(PARALLEL) as pool:
            wanted = [
                pool.submit(bucket.fetch, entry.key, folder / path, entry.sha256) for path, entry in snapshot.items()
            ]
        for fetched in wanted:
            fetched.result()
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        warn(f"the stored state of the run is damaged, it begins anew: {error}")
        shutil.rmtree(folder, ignore_errors=True)
        return {}
    return snapshot
