"""The run folder from the worker's side: what the child finds there, and what it leaves."""

from pathlib import Path
from typing import Any

from api.db import queries
from api.db.models import Artifact, Job, now
from api.db.session import Sessions
from api.jobs.files import Files
from api.settings import Settings
from dpdy_core import __version__
from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput
from dpdy_core.rundir import RunDir, read_json, write_json

LONGEST_PATH = 500
SILENCE = 0.4  # share of the lease after which a child without a pulse stops; it is killed at 0.6
LESS_MEMORY = "render.chunk halved, expandable segments"


def prepare(job: Job, run: RunDir, settings: Settings, sessions: Sessions, files: Files) -> list[str]:
    """Write what the child reads, and return its command.

    Raises BadInput if the job's upload is gone, ValidationError for settings of another version.
    """
    run.renders.mkdir(parents=True, exist_ok=True)
    pulse = str(round(SILENCE * settings.lease_seconds, 3))
    progress = ["--progress", "json", "--supervised", "--pulse", pulse]
    if job.kind == "render":
        path, document = job.config["path"], job.camera_paths[0]
        out = str(run.renders / f"{Path(path).stem}.mp4")
        if isinstance(document, dict):
            file = run.camera_paths / f"{job.id}.json"  # no file of the parent run has this name
            write_json(file, document)
            path = str(file)
        options = [f"--{key}={job.config[key]}" for key in ("fps", "width") if job.config[key] is not None]
        parent = str(files.run(job.parent_id or ""))
        return [*settings.engine, "render", parent, "--path", path, "--out", out, *options, *progress]
    config = RunConfig.model_validate(job.config)
    for name, document in zip(job.config["render"]["paths"], job.camera_paths, strict=False):
        if isinstance(document, dict):
            write_json(run.root / name, document)
    if files.bucket or not run.config_file.exists():
        _give_capture(job, config, run, sessions, files)
    return [*settings.engine, "run", str(run.root), "--attempt", str(job.attempt), *progress]


def _give_capture(job: Job, config: RunConfig, run: RunDir, sessions: Sessions, files: Files) -> None:
    """Write the settings with the place of the upload; fetch it, unless the run has the capture in it already."""
    with sessions() as session:
        upload = queries.upload(session, job.upload_id or "")
    if upload is None:
        raise BadInput(f"upload {job.upload_id} is gone", "upload the capture again")
    environment = {"dpdy": __version__}
    if run.config_file.exists():  # of another worker, whose scratch was elsewhere
        config, environment = run.read_config()[0], read_json(run.config_file)["environment"]
    if run.stage_record("ingest") is None:
        if upload.deleted_at:
            raise BadInput(f"upload {job.upload_id} is gone", "upload the capture again")
        try:
            files.fetch_upload(upload)
        except (FileNotFoundError, ValueError) as error:
            raise BadInput(f"upload {upload.id} is lost or damaged", "upload the capture again") from error
    run.write_config(config, files.upload(upload), environment)


def save_memory(job: Job, run: RunDir) -> dict[str, str]:
    """What the second attempt after an out-of-memory changes, none of it the result: the environment, and the chunk.

    Halving rays or batches would be another run, which begins anew instead of going on from the checkpoint.
    """
    if job.kind == "train":
        config, source = run.read_config()
        wanted = RunConfig.model_validate(job.config).render.chunk
        smaller = config.render.model_copy(update={"chunk": max(wanted // 2, 1)})
        run.write_config(
            config.model_copy(update={"render": smaller}), source, read_json(run.config_file)["environment"]
        )
    return {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


def collect_artifacts(job: Job, run: RunDir, code: int) -> list[Artifact]:
    """The files of the manifest, as far as they still are what it says; the engine writes it whenever it can."""
    if code == 0 and (job.kind == "render" or not run.manifest_file.exists()):
        run.write_manifest(job.attempt)
    if not run.manifest_file.exists():
        return []
    artifacts = []
    for entry in read_json(run.manifest_file)["files"]:
        file = run.root / entry["path"]
        if file.is_file() and file.stat().st_size == entry["size"] and len(entry["path"]) <= LONGEST_PATH:
            artifacts.append(Artifact(job_id=job.id, created_at=now(), **entry))
    return artifacts


def read_metrics(run: RunDir) -> dict[str, Any] | None:
    """evaluation/metrics.json without the single views."""
    if not run.metrics_file.exists():
        return None
    return {key: value for key, value in read_json(run.metrics_file).items() if key != "views"}
