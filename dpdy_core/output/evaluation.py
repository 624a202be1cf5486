"""The evaluate stage: renders of the held-out views against the truth, as numbers and as pictures."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, JobFailed
from dpdy_core.geometry.paths import as_filmed
from dpdy_core.ingest.clip import Clip, Split, load_clip, load_given_depth, read_transforms
from dpdy_core.optimise.camera_corrections import refined
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.output.baselines import all_times_warps, nearest_frame
from dpdy_core.output.covisibility import complete_covisible
from dpdy_core.output.keypoints import Keypoints, read_keypoints
from dpdy_core.output.metrics import flip_map, flip_missing
from dpdy_core.output.notes import notes_on
from dpdy_core.output.protocols import DYCHECK, PROTOCOLS, deviations, longer_side
from dpdy_core.output.provenance import provenance
from dpdy_core.output.scores import MEASURES, REGIONS, HeldOut, Scores, mean_scores
from dpdy_core.output.video import depth_colours, disparity_range, to_bytes, write_jpeg
from dpdy_core.output.views import probe_depths, surface_depth
from dpdy_core.progress import Reporter
from dpdy_core.render.renderer import Rendering, render_camera
from dpdy_core.rundir import RunDir, folder_atomic, read_json, write_json
from dpdy_core.runtime import resolve_device


def evaluate_run(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Write `evaluation/metrics.json`, `per_view.csv` and `images/` from all test views, all at once.

    The protocol `config.evaluate.protocol` decides the size of the views and the forms of the metrics. A capture
    without test views gets empty scores and a note. The same run gives the same bytes again.
    """
    protocol = PROTOCOLS[config.evaluate.protocol]
    device = resolve_device(config.device)
    side = longer_side(protocol, read_transforms(run.capture), config)
    train = load_clip(run.capture, "train", side)
    if train is None:
        raise BadInput("no training frame has a camera pose", "run the stage `cameras` first")
    split, clip = _held_out(run, side)
    held_out, computed = None, 0
    keypoints = read_keypoints(run.capture, train) if protocol is DYCHECK else None
    views: list[Scores] = []
    baselines: dict[str, list[Scores]] = {"nearest_frame": []}
    with folder_atomic(run.evaluation) as folder:
        (folder / "images").mkdir()
        if clip is not None:
            if protocol is DYCHECK:
                places = folder / "covisible", run.evaluation / "covisible"
                clip, computed = complete_covisible(run.capture, clip, train, *places, reporter.check)
            depth = load_given_depth(run.capture, clip)
            train, clip = train.to(device), clip.to(device)
            held_out = HeldOut(clip, None if depth is None else depth.to(device), protocol)
            views = _score_views(run, config, held_out, folder / "images", device, reporter)
            baselines = _score_baselines(train, held_out, reporter)
        carried = None if keypoints is None else _score_keypoints(run, config, keypoints, train, device, reporter)
        size = (train.cameras.width, train.cameras.height)
        reasons = (
            [] if clip is None else deviations(protocol, read_transforms(run.capture), _original(run), size, computed)
        )
        document = {
            "protocol": protocol.name,
            "split": split,
            "resolution": list(size),
            **provenance(run, device),
            "deviations": reasons,
            "views": views,
            "mean": mean_scores(views),
            "baselines": {name: mean_scores(scores) for name, scores in baselines.items()},
            "pck_t": carried,
            "truth": {"static": {"flicker": held_out.own_flicker() if held_out else None}},
            "notes": [*reasons, *notes_on(run, protocol, split, held_out, train, views, keypoints)],
        }
        write_json(folder / "metrics.json", document)
        _write_csv(folder / "per_view.csv", views)


def _original(run: RunDir) -> tuple[int, int] | None:
    """The size of the capture's images as they were given, if it is known."""
    report = read_json(run.capture_report_file) if run.capture_report_file.is_file() else {}
    return (report["width"], report["height"]) if "width" in report else None


def _score_views(
    run: RunDir, config: RunConfig, held_out: HeldOut, images: Path, device: torch.device, reporter: Reporter
) -> list[Scores]:
    """The scores of the scene, view by view; a row of pictures of each goes to `images`."""
    clip = held_out.clip
    views: list[Scores] = []
    colours: list[Tensor] = []
    for rendering, picture in _rendered(run, config, clip, device, reporter):
        view, name = len(views), clip.names[len(views)]
        if not bool(rendering.colour.isfinite().all()):
            raise JobFailed(
                f"the scene renders {name} with values that are not finite", "train it anew, with another seed"
            )
        colours.append(rendering.colour)
        scores = held_out.score(colours, rendering.depth)
        views.append({"image": name, "time": float(clip.times[view]), **scores})
        place = images / f"{view:04d}_{Path(name).stem}"
        write_jpeg(place.with_name(f"{place.name}.jpg"), picture)
        cv2.imwrite(str(place.with_name(f"{place.name}_error.png")), _error_map(rendering.colour, clip.images[view]))
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


def _score_keypoints(
    run: RunDir, config: RunConfig, keypoints: Keypoints, train: Clip, device: torch.device, reporter: Reporter
) -> float | None:
    """PCK-T between the training frames, at their cameras as the scene corrected them."""
    scene = load_scene(run.scene, device, reporter.fall_back)
    cameras = refined(train, run.scene).cameras

    def render(index: int, time: float) -> Rendering:
        return render_camera(scene, cameras, index, time, config.render.chunk, check=reporter.check)

    return keypoints.score(cameras.to("cpu"), train.times, render)


def _scored(pictures: Iterator[Tensor], held_out: HeldOut, reporter: Reporter) -> list[Scores]:
    made: list[Tensor] = []
    scores = []
    for picture in pictures:
        reporter.check()
        made.append(picture)
        scores.append(held_out.score(made))
    return scores


def _held_out(run: RunDir, side: int) -> tuple[Split, Clip | None]:
    """The test frames, or the val frames of a capture that has only those, `side` pixels long."""
    test = load_clip(run.capture, "test", side)
    if test is None and (val := load_clip(run.capture, "val", side)) is not None:
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


def _error_map(colour: Tensor, truth: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 BGR: FLIP of each pixel, black none to yellow one; without FLIP the mean absolute difference."""
    rendered, true = colour.clamp(0, 1), truth.float() / 255
    error = (rendered - true).abs().mean(-1) if flip_missing() else flip_map(rendered, true)
    return cv2.applyColorMap((error.clamp(0, 1) * 255).round().byte().cpu().numpy(), cv2.COLORMAP_MAGMA)


def _write_csv(path: Path, views: list[Scores]) -> None:
    columns = [*MEASURES, *(f"{region}_{measure}" for region in REGIONS for measure in MEASURES)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "time", *columns])
        for view in views:
            regions = [view[region][measure] for region in REGIONS for measure in MEASURES]
            writer.writerow([view["image"], view["time"], *(view[measure] for measure in MEASURES), *regions])
