"""The evaluate stage: renders of the held-out views against the truth, as numbers and as pictures."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.geometry.paths import as_filmed
from dpdy_core.ingest.clip import Clip, Split, load_clip, read_transforms
from dpdy_core.optimise.camera_corrections import load_corrections
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.output.baselines import nearest_frame
from dpdy_core.output.metrics import LEAST_MS_SSIM_SIDE, ms_ssim, psnr, quantise, ssim
from dpdy_core.output.video import depth_colours, disparity_range, to_bytes, write_jpeg
from dpdy_core.output.views import probe_depths, surface_depth
from dpdy_core.progress import Reporter
from dpdy_core.render.renderer import Rendering, render_camera
from dpdy_core.rundir import RunDir, folder_atomic, write_json
from dpdy_core.runtime import resolve_device

METRICS = ("psnr", "ssim", "ms_ssim", "lpips")
REGIONS = ("covisible", "moving")

Scores = dict[str, Any]


def evaluate_run(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Write `evaluation/metrics.json`, `per_view.csv` and `images/` from all test views, all at once.

    Views are rendered at the size the scene was trained at. A capture without test views gets empty scores and a note.
    """
    check_protocol(config)
    device = resolve_device(config.device)
    train = load_clip(run.capture, "train", config.scene.max_size)
    if train is None:
        raise BadInput("no training frame has a camera pose", "run the stage `cameras` first")
    split, held_out = _held_out(run, config)
    views: list[Scores] = []
    copies: list[Scores] = []
    with folder_atomic(run.evaluation) as folder:
        (folder / "images").mkdir()
        if held_out is not None:
            train, held_out = train.to(device), held_out.to(device)
            for truth, rendering, picture in _rendered(run, config, held_out, device, reporter):
                view = len(views)
                time = float(held_out.times[view])
                name = held_out.names[view]
                copy = nearest_frame(train, held_out.cameras, view, time)
                views.append({"image": name, "time": time, **_score(rendering.colour, truth, held_out, view)})
                copies.append(_score(copy, truth, held_out, view))
                write_jpeg(folder / "images" / f"{view:04d}_{Path(name).stem}.jpg", picture)
                reporter.step(view + 1, len(held_out), psnr=views[-1]["psnr"] or math.nan)
        document = {
            "protocol": config.evaluate.protocol,
            "split": split,
            "resolution": [train.cameras.width, train.cameras.height],
            "views": views,
            "mean": mean_scores(views),
            "baselines": {"nearest_frame": mean_scores(copies)},
            "notes": [*_notes(run, split, held_out, views), *_refinement(run, train)],
        }
        write_json(folder / "metrics.json", document)
        _write_csv(folder / "per_view.csv", views)


def check_protocol(config: RunConfig) -> None:
    """Raise BadSettings for a protocol that does not exist yet; callers do so before hours of training."""
    if config.evaluate.protocol != "plain":
        raise BadSettings(
            f"the protocol {config.evaluate.protocol!r} is not available yet", "use evaluate.protocol=plain"
        )


def _held_out(run: RunDir, config: RunConfig) -> tuple[Split, Clip | None]:
    """The test frames, or the val frames of a capture that has only those."""
    test = load_clip(run.capture, "test", config.scene.max_size)
    if test is None and (val := load_clip(run.capture, "val", config.scene.max_size)) is not None:
        return "val", val
    return "test", test


def _rendered(
    run: RunDir, config: RunConfig, clip: Clip, device: torch.device, reporter: Reporter
) -> Iterator[tuple[Tensor, Rendering, np.ndarray]]:
    """Truth (H, W, 3), rendering and a row of pictures (truth, render, error, depth) of each view of `clip`."""
    scene = load_scene(run.scene, device, reporter.fall_back)
    chunk = config.render.chunk
    low, high = disparity_range(probe_depths(scene, as_filmed(clip.cameras, clip.times, 1.0), chunk))
    for view, time in enumerate(clip.times.tolist()):
        rendering = render_camera(scene, clip.cameras, view, time, chunk, check=reporter.check)
        truth = clip.images[view].float() / 255
        error = (rendering.colour.clamp(0, 1) - truth).abs()
        row = [to_bytes(image) for image in (truth, rendering.colour, error)]
        row.append(depth_colours(surface_depth(rendering), low, high))
        yield truth, rendering, np.concatenate(row, axis=1)


def _score(image: Tensor, truth: Tensor, clip: Clip, view: int) -> Scores:
    """The metrics of one view: of the whole image, of the covisible and of the moving pixels."""
    image, truth = quantise(image).cpu(), quantise(truth).cpu()
    valid = clip.valid[view].cpu()
    whole = None if bool(valid.all()) else valid
    scores: Scores = {
        "psnr": _finite(psnr(image, truth, whole)),
        "ssim": ssim(image, truth, whole),
        "ms_ssim": ms_ssim(image, truth) if whole is None else None,
        "lpips": None,
    }
    for region, masks in zip(REGIONS, (clip.covisible, clip.motion), strict=True):
        mask = None if masks is None else masks[view].cpu() & valid
        scores[region] = {
            "psnr": None if mask is None else _finite(psnr(image, truth, mask)),
            "ssim": None if mask is None else ssim(image, truth, mask),
            "ms_ssim": None,
            "lpips": None,
        }
    return scores


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def mean_scores(views: list[Scores]) -> Scores:
    """The mean of each metric over the views that have it; null where none has."""

    def mean(read: Callable[[Scores], float | None]) -> float | None:
        values = [v for v in map(read, views) if v is not None]
        return sum(values) / len(values) if values else None

    means: Scores = {metric: mean(lambda view, m=metric: view[m]) for metric in METRICS}  # type: ignore[misc]
    for region in REGIONS:
        means[region] = {metric: mean(lambda view, r=region, m=metric: view[r][m]) for metric in METRICS}  # type: ignore[misc]
    return means


def _notes(run: RunDir, split: Split, clip: Clip | None, views: list[Scores]) -> list[str]:
    """Why a number is missing or means something special."""
    notes = ["lpips is null: its network's weights are not part of the package"]
    listed = len(read_transforms(run.capture)[f"{split}_filenames"])
    if clip is None:
        reason = f"none of the {listed} test frames has a camera pose" if listed else "the capture has no test views"
        return [f"{reason}: nothing could be scored", *notes]
    if len(clip) < listed:
        notes.append(f"{listed - len(clip)} of {listed} {split} frames have no camera pose and are not scored")
    if min(clip.cameras.width, clip.cameras.height) < LEAST_MS_SSIM_SIDE:
        notes.append(f"ms_ssim is null: its five scales need images of {LEAST_MS_SSIM_SIDE} pixels a side")
    if not bool(clip.valid.all()):
        notes.append("pixels that the capture's masks exclude are not scored; ms_ssim is null on such views")
    for region, masks, key in (
        ("covisible", clip.covisible, "covisible_path"),
        ("moving", clip.motion, "motion_mask_path"),
    ):
        if masks is None:
            notes.append(f"{region} is null: the {split} frames have no {key}")
        elif any(view[region]["psnr"] is None for view in views):
            notes.append(f"{region} is null on views without such pixels; the mean is over the others")
    notes.append("ms_ssim is null on covisible and moving pixels: it has no masked form")
    if any(view["psnr"] is None for view in views):
        notes.append("psnr is null where render and truth are equal or no pixel counts")
    return notes


def _refinement(run: RunDir, train: Clip) -> list[str]:
    """What the scene stage did to the training cameras."""
    if (corrections := load_corrections(run.scene, train)) is None:
        return []
    degrees, shift = (float(value) for value in corrections.numbers().values())
    return [
        f"the training cameras were refined, by {degrees:.2g} degrees and {shift:.2g} units of the capture on average; "
        "the cameras that are scored are as given"
    ]


def _write_csv(path: Path, views: list[Scores]) -> None:
    columns = [*METRICS, *(f"{region}_{metric}" for region in REGIONS for metric in METRICS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "time", *columns])
        for view in views:
            regions = [view[region][metric] for region in REGIONS for metric in METRICS]
            writer.writerow([view["image"], view["time"], *(view[metric] for metric in METRICS), *regions])
