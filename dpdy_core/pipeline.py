"""The eight stages in order: the table of contents of the core."""

import hashlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dpdy_core.config import STAGES, RunConfig
from dpdy_core.errors import BadInput
from dpdy_core.ingest.cameras import solve_cameras
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.depth import estimate_depth
from dpdy_core.ingest.masks import estimate_masks
from dpdy_core.optimise.loop import optimise_scene, optimise_trunk
from dpdy_core.output.evaluation import evaluate_run
from dpdy_core.output.report import write_report
from dpdy_core.output.views import render_views
from dpdy_core.prior.dreambooth import finetune_prior
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, read_json, sha256_file
from dpdy_core.runtime import compute_deterministically, environment, resolve_device, seed_everything
from dpdy_core.stages import TRUNK

Stage = Callable[[RunDir, RunConfig, Reporter], None]

STAGE_FUNCTIONS: tuple[tuple[str, Stage], ...] = (
    ("ingest", ingest_capture),
    ("masks", estimate_masks),
    ("cameras", solve_cameras),
    ("depth", estimate_depth),
    ("prior", finetune_prior),
    ("scene", optimise_scene),
    ("render", render_views),
    ("evaluate", evaluate_run),
)


def run_pipeline(run: RunDir, reporter: Reporter, attempt: int = 1, until: str = STAGES[-1]) -> None:
    """Run or resume the stages of the run folder; after the last, write the report and the manifest.

    With `until` the pipeline ends after that stage. Until TRUNK it makes no prior, and leaves the scene where the
    prior would begin.

    Raises DpdyError: BadInput for an unusable capture, Cancelled after a requested stop, JobFailed otherwise.
    """
    run.remove_partials()
    config, source = run.read_config()
    device = resolve_device(config.device)
    compute_deterministically(device)
    run.write_config(config, source, environment(device))
    digest = _input_hash(run, source)
    try:
        for name, stage in _stages(until):
            _run_stage(name, stage, run, config, reporter, digest)
    finally:
        run.write_manifest(attempt)
    if until != STAGES[-1]:
        return
    write_report(run)
    run.write_manifest(attempt)
    reporter.emit("finished", numbers=read_json(run.metrics_file)["mean"])


def _stages(until: str) -> tuple[tuple[str, Stage], ...]:
    if until == TRUNK:
        return (*STAGE_FUNCTIONS[: STAGES.index("prior")], (TRUNK, optimise_trunk))
    return STAGE_FUNCTIONS[: STAGES.index(until) + 1]


def _run_stage(name: str, stage: Stage, run: RunDir, config: RunConfig, reporter: Reporter, digest: str) -> None:
    decided = "scene" if name == TRUNK else name
    fingerprint = run.fingerprint(decided, config, digest)
    if run.is_done(name, fingerprint):
        reporter.skip(name)
        return
    reporter.start(name)
    seed_everything(config.seed + STAGES.index(decided))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    stage(run, config, reporter)
    usage = {"seconds": round(time.monotonic() - started, 2), "peak_memory_bytes": _peak_memory()}
    run.mark_done(name, fingerprint, input_hash=digest, **usage)
    reporter.done(**usage)


def _peak_memory() -> int:
    """Bytes: the GPU's peak in this stage, or the process's so far where there is no GPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _input_hash(run: RunDir, source: Path) -> str:
    """Hash of the input's bytes; a run whose input has moved away keeps the hash it was made with."""
    if source.is_file():
        return _file_hash(source)
    if source.is_dir():
        return _folder_hash(source)
    record = run.stage_record("ingest")
    return record["input_hash"] if record else ""


def _folder_hash(folder: Path) -> str:
    """Of names and bytes; of what is no file inside `folder` (a link that leaves it, a pipe) the name alone counts."""
    digest = hashlib.sha256()
    inside = os.path.realpath(folder) + os.sep
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            own = path.is_file() and os.path.realpath(path).startswith(inside)
            name = os.fsencode(path.relative_to(folder).as_posix())
            digest.update(name + f"\0{_file_hash(path) if own else ''}\n".encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except PermissionError as error:
        raise BadInput(f"{path.name} may not be read ({error.strerror})", "let it be read") from error
