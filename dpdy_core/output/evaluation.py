"""The evaluate stage: renders of the held-out views against the truth, as numbers and as pictures."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.geometry.paths import as_filmed
from dpdy_core.ingest.clip import Clip, Split, load_clip, load_given_depth, read_transforms
from dpdy_core.optimise.camera_corrections import load_corrections
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.output.baselines import all_times_warps, nearest_frame
from dpdy_core.output.metrics import LEAST_MS_SSIM_SIDE
from dpdy_core.output.scores import MEASURES, REGIONS, HeldOut, Scores, mean_scores
from dpdy_core.output.video import depth_colours, disparity_range, to_bytes, write_jpeg
from dpdy_core.output.views import probe_depths, surface_depth
from dpdy_core.progress import Reporter
from dpdy_core.render.renderer import Rendering, render_camera
from dpdy_core.rundir import RunDir, folder_atomic, write_json
from dpdy_core.runtime import resolve_device


def evaluate_run(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Write `evaluation/metrics.json`, `per_view.csv` and `images/` from all test views, all at once.

    Views are rendered at the size the scene was trained at. A capture without test views gets empty scores and a note.
    """
    check_protocol(config)
    device = resolve_device(config.device)
    train = load_clip(run.capture, "train", config.scene.max_size)
    if train is None:
        raise BadInput("no training frame has a camera pose", "run the stage `cameras` first")
    split, clip = _held_out(run, config)
    held_out = None
    views: list[Scores] = []
    baselines: dict[str, list[Scores]] = {"nearest_frame": []}
    with folder_atomic(run.evaluation) as folder:
        (folder / "images").mkdir()
        if clip is not None:
            depth = load_given_depth(run.capture, clip)
            train, clip = train.to(device), clip.to(device)
            held_out = HeldOut(clip, None if depth is None else depth.to(device))
            views = _score_views(run, config, held_out, folder / "images", device, reporter)
            baselines = _score_baselines(train, held_out, reporter)
        document = {
            "protocol": config.evaluate.protocol,
            "split": split,
            "resolution": [train.cameras.width, train.cameras.height],
            "views": views,
            "mean": mean_scores(views),
            "baselines": {name: mean_scores(scores) for name, scores in baselines.items()},
            "truth": {"static": {"flicker": held_out.own_flicker() if held_out else None}},
            "notes": [*_notes(run, split, held_out, train, views), *_refinement(run, train)],
        }
        write_json(folder / "metrics.json", document)
        _write_csv(folder / "per_view.csv", views)


def _score_views(
    run: RunDir, config: RunConfig, held_out: HeldOut, images: Path, device: torch.device, reporter: Reporter
) -> list[Scores]:
    """The scores of the scene, view by view; a row of pictures of each goes to `images`."""
    clip = held_out.clip
    views: list[Scores] = []
    colours: list[Tensor] = []
    for rendering, picture in _rendered(run, config, clip, device, reporter):
        view, name = len(views), clip.names[len(views)]
        colours.append(rendering.colour)
        scores = held_out.score(colours, rendering.depth)
        views.append({"image": name, "time": float(clip.times[view]), **scores})
        write_jpeg(images / f"{view:04d}_{Path(name).stem}.jpg", picture)
        reporter.step(view + 1, len(clip), psnr=views[-1]["psnr"] or math.nan)
    return views


def _score_baselines(train: Clip, held_out: HeldOut, reporter: Reporter) -> dict[str, list[Scores]]:
    """The scores of each baseline, view by view."""
    clip = held_out.clip
    times = clip.times.tolist()
    pictures: dict[str, Iterator[Tensor]] = {
        "nearest_frame": (nearest_frame(train, clip.cameras, view, time) for view, time in enumerate(times))
    }
    if train.depth is not None:
        pictures["all_times_warp"] = all_times_warps(train, clip.cameras, clip.times)
    return {name: _scored(made, held_out, reporter) for name, made in pictures.items()}


def _scored(pictures: Iterator[Tensor], held_out: HeldOut, reporter: Reporter) -> list[Scores]:
    made: list[Tensor] = []
    scores = []
    for picture in pictures:
        reporter.check()
        made.append(picture)
        scores.append(held_out.score(made))
    return scores


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
) -> Iterator[tuple[Rendering, np.ndarray]]:
    """The rendering and a row of pictures (truth, render, error, depth) of each view of `clip`."""
    scene = load_scene(run.scene, device, reporter.fall_back)
    chunk = config.render.chunk
    low, high = disparity_range(probe_depths(scene, as_filmed(clip.cameras, clip.times, 1.0), chunk))
    for view, time in enumerate(clip.times.tolist()):
        rendering = render_camera(scene, clip.cameras, view, time, chunk, check=reporter.check)
        truth = clip.images[view].float() / 255
        error = (rendering.colour.clamp(0, 1) - truth).abs()
        row = [to_bytes(image) for image in (truth, rendering.colour, error)]
        row.append(depth_colours(surface_depth(rendering), low, high))
        yield rendering, np.concatenate(row, axis=1)


def _notes(run: RunDir, split: Split, held_out: HeldOut | None, train: Clip, views: list[Scores]) -> list[str]:
    """Why a number is missing or means something special."""
    notes = ["lpips is null: its network's weights are not part of the package"]
    listed = len(read_transforms(run.capture)[f"{split}_filenames"])
    if held_out is None:
        reason = f"none of the {listed} test frames has a camera pose" if listed else "the capture has no test views"
        return [f"{reason}: nothing could be scored", *notes]
    clip = held_out.clip
    if len(clip) < listed:
        notes.append(f"{listed - len(clip)} of {listed} {split} frames have no camera pose and are not scored")
    if min(clip.cameras.width, clip.cameras.height) < LEAST_MS_SSIM_SIDE:
        notes.append(f"ms_ssim is null: its five scales need images of {LEAST_MS_SSIM_SIDE} pixels a side")
    else:
        notes.append("ms_ssim of a region is that of the image with the truth put in everywhere else")
    if not bool(clip.valid.all()):
        notes.append("pixels that the capture's masks exclude are not scored")
    for region, key in (("covisible", "covisible_path"), ("moving", "motion_mask_path")):
        other = {"covisible": "unseen", "moving": "static"}[region]
        if not held_out.has(region):
            notes.append(f"{region} and {other} are null: the {split} frames have no {key}")
        elif any(view[which]["psnr"] is None for view in views for which in (region, other)):
            notes.append(f"{region} or {other} is null on views without such pixels; the mean is over the others")
    if held_out.has("unseen"):
        notes.append("unseen is what covisible leaves out: surfaces that no or too few training frames saw")
    if held_out.depth is None:
        notes.append(f"abs_rel is null: the {split} frames have no metric depth")
    else:
        notes.append("abs_rel is the relative error of depth after one factor a view, that of the medians")
    if all(before is None for before in held_out.before):
        notes.append(f"flicker is null: no two {split} frames share a camera")
    else:
        notes.append("flicker, in levels of 255, is the change since the same camera's last view; truth has its own")
    notes.append("sharpness is the gradient energy over that of the truth")
    if train.depth is None:
        notes.append("the baseline all_times_warp is missing: the training frames have no depth")
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
    columns = [*MEASURES, *(f"{region}_{measure}" for region in REGIONS for measure in MEASURES)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "time", *columns])
        for view in views:
            regions = [view[region][measure] for region in REGIONS for measure in MEASURES]
            writer.writerow([view["image"], view["time"], *(view[measure] for measure in MEASURES), *regions])
