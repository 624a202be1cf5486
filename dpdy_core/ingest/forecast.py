"""What a run of a capture will cost, roughly, before it begins. Torch-free."""

from typing import Any

from dpdy_core.config import RunConfig
from dpdy_core.ingest.size import fitted_size
from dpdy_core.presets import PRESETS

# Seconds per unit of work, fitted to docs/results.md (smoke on one or two cores; fast on an H100, of whose scene stage
# 38 s are compilation) and, for the full-size prior, to times measured on an H200 (150 ms a DreamBooth step of four at
# 512 pixels, 33 ms a guided denoising).
DEVICES = ("cpu", "cuda")
_START = {"cpu": 10.0, "cuda": 80.0}  # imports, compilation
_DECODE = 0.02  # per megapixel of the source
_FLOW = 7e-6  # per pixel of a frame whose motion is looked for; on the CPU in any case
_REDRAW = {"cpu": 6e-6, "cuda": 2e-6}  # per pixel of a frame whose mask is redrawn; by more CPU cores beside a GPU
_FEATURES, _PAIR = 0.4, 0.02  # per frame and pair of structure from motion; on the CPU in any case
_SWEEP = {"cpu": 1.2e-7, "cuda": 1.6e-8}  # per pixel, plane and neighbour
_SMALL_PRIOR = {"cpu": 9e-6, "cuda": 1.6e-7}  # per pixel and pass of dpdy-tiny, a training step being three
_LARGE_PRIOR = {"cpu": 3e-5, "cuda": 5e-8}  # of LDM3D-4c's size
_TRAIN = {"cpu": 4.5e-6, "cuda": 7e-8}  # per sample of a training ray
_RENDER = {"cpu": 2.8e-6, "cuda": 2.3e-8}  # per sample of a rendered ray
_BUNDLED = "dpdy-tiny"
_GIB = 2**30
_PROGRAM = {"cpu": 0.7, "cuda": 0.9}  # GiB of main memory, or of the GPU's
_SAMPLE_BYTES = {"cpu": 4500, "cuda": 3100}  # of a training ray's sample, with its gradient
_LARGE_PRIOR_GIB = 18.0  # finetuning LDM3D-4c, batch of four

NOTE = "estimates, within a factor of two or so; cpu: two cores, cuda: one GPU of the H100's class"


def forecast(report: dict[str, Any]) -> dict[str, Any]:
    """For each preset and device class `seconds` and `memory_gib` of a run of the capture in a report, and `note`.

    Memory is the process's on a CPU and the GPU's on one.
    """
    costs = {name: {device: _cost(report, make(), device) for device in DEVICES} for name, make in PRESETS.items()}
    return {**costs, "note": NOTE}


def _cost(report: dict[str, Any], config: RunConfig, device: str) -> dict[str, float]:
    seconds = sum(stage_seconds(report, config, device).values())
    samples = config.scene.rays * (config.scene.sampling.proposal + config.scene.sampling.fine)
    memory = _PROGRAM[device] + samples * _SAMPLE_BYTES[device] / _GIB
    if config.prior.model != _BUNDLED:
        memory = max(memory, _LARGE_PRIOR_GIB)
    return {"seconds": float(f"{seconds:.2g}"), "memory_gib": round(memory, 1)}


def stage_seconds(report: dict[str, Any], config: RunConfig, device: str) -> dict[str, float]:
    """Seconds by stage."""
    source = (report["width"], report["height"])
    stored = fitted_size(*source, config.ingest.max_size)
    held_out = report["splits"]["test"]
    train = min(report["splits"]["train"], config.ingest.max_frames)
    if not report["has_splits"] and config.ingest.holdout_every > 1:
        held_out = train // config.ingest.holdout_every

    def pixels(max_size: int) -> int:
        width, height = fitted_size(*stored, max_size)
        return width * height

    scene, rate = config.scene, _TRAIN[device]
    per_ray = scene.sampling.proposal + scene.sampling.fine
    pairs = train * (train if train <= 60 else 24) / 2
    frame = pixels(config.render.width or scene.max_size) * per_ray * _RENDER[device]
    swept = train * pixels(config.depth.max_size) * config.depth.planes * config.depth.neighbours * _SWEEP[device]
    swept *= not report["has_depth"]
    redrawn = train * pixels(config.masks.max_size) * _REDRAW[device]
    redrawn *= config.masks.refine and not report["has_motion_masks"]
    made_up = 2 * round(config.render.seconds * (config.render.fps or report["fps"] or 24))
    return {
        "start": _START[device],
        "ingest": report["frames"] * source[0] * source[1] * 1e-6 * _DECODE,
        "masks": 0.0 if report["has_motion_masks"] else train * pixels(config.masks.max_size) * _FLOW,
        "cameras": 0.0 if report["has_poses"] else train * _FEATURES + pairs * _PAIR,
        "depth": swept + redrawn,
        "prior": _prior_passes(config) * config.prior.resolution**2 * _prior_rate(config, device),
        "scene": scene.steps * scene.rays * _painted(config) * per_ray * rate + _distillation(config, device),
        "render": (2 * train + made_up + held_out) * frame,
        "evaluate": held_out * frame,
    }


def _prior_rate(config: RunConfig, device: str) -> float:
    return (_SMALL_PRIOR if config.prior.model == _BUNDLED else _LARGE_PRIOR)[device]


def _prior_passes(config: RunConfig) -> int:
    """Passes of one image through the network: three a training step, two a guided denoising step."""
    prior = config.prior
    if prior.finetune == "none":
        return 0
    return 3 * prior.steps * prior.batch_size + 2 * prior.class_images * prior.sampling_steps


def _painted(config: RunConfig) -> float:
    """Rays of a run as a multiple of those of frames: the rest are those of painted views."""
    refinement = config.scene.refinement
    return 1 + refinement.rays * (1 - refinement.begin) * refinement.enabled


def _distillation(config: RunConfig, device: str) -> float:
    scene = config.scene
    per_ray = scene.sampling.proposal + scene.sampling.fine
    seconds = 0.0
    for settings, views in ((scene.sds, scene.sds.views), (scene.video_sds, scene.video_sds.frames)):
        if settings.enabled:
            steps = scene.steps * (1 - settings.begin) / settings.every
            area = settings.resolution**2
            view = area * (per_ray * _TRAIN[device] + 4 * _prior_rate(config, device))
            seconds += steps * views * view
    return seconds
