"""The receipt of a deletion: what was removed, by what it is, with sizes and hashes."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from api.db.models import Artifact, Job, Upload, now
from api.jobs.files import Files, Stored
from api.jobs.stages import timestamp

Receipt = dict[str, Any]
KINDS = ("capture", "weights", "checkpoint", "preview", "render", "evaluation", "log", "other")
WEIGHTS = (".safetensors", ".bin", ".pt", ".ckpt")


def write_receipt(files: Files, job: Job, artifacts: Iterable[Artifact], upload: Upload | None) -> Receipt:
    """What a deletion of the job is about to remove, all of it hashed; `upload` is what it leaves.

    A deletion that broke off had stored its receipt before: what it lists stays listed.
    """
    rows = list(artifacts)
    known = {(f"run/{row.path}", row.size): row.sha256 for row in rows}
    listed: dict[str, dict[str, Any]] = {entry["path"]: entry for entry in (job.receipt or {}).get("files", [])}
    for path, stored in files.job_files(job.id, rows):
        with suppress(FileNotFoundError):  # another deletion is faster, and has listed it
            digest = known.get((path, stored.size)) or _sha256(stored)
            listed[path] = {"path": path, "kind": kind_of(Path(path)), "size": stored.size, "sha256": digest}
    entries = sorted(listed.values(), key=lambda entry: str(entry["path"]))
    return {
        "job_id": job.id,
        "deleted_at": timestamp(now()),
        "count": len(entries),
        "bytes": sum(entry["size"] for entry in entries),
        "kinds": {kind: _sum(entry["size"] for entry in entries if entry["kind"] == kind) for kind in KINDS},
        "files": entries,
        "upload": upload and {"id": upload.id, "sha256": upload.sha256, "expires_at": timestamp(upload.expires_at)},
    }


def kind_of(path: Path) -> str:
    """What a file of a job is; `path` is relative to the job's folder, as `run/prior/...`."""
    match path.parts[1:-1]:
        case ("prior", "checkpoints", *_) | ("scene", *_):
            return "checkpoint"
        case ("prior", *_):
            return "weights" if path.suffix in WEIGHTS else "preview" if path.suffix in (".jpg", ".png") else "other"
        case ("renders", "previews", *_):
            return "preview"
        case ("renders", *_):
            return "render"
        case ("capture", *_):
            return "capture"
        case ("evaluation", *_):
            return "evaluation"
    return "log" if path.name in ("log.jsonl", "events.jsonl") else "other"


def _sha256(stored: Stored) -> str:
    digest = hashlib.sha256()
    for chunk in stored.read(0, stored.size):
        digest.update(chunk)
    return digest.hexdigest()


def _sum(sizes: Iterable[int]) -> dict[str, int]:
    found = list(sizes)
    return {"count": len(found), "bytes": sum(found)}
