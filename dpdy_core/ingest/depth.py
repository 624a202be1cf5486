"""Stage depth: how far away things are, in one scale for the whole clip, that of the cameras."""

from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.ingest.align import DepthKind, align_clip, apply
from dpdy_core.ingest.clip import (
    fitted_size,
    frames_of,
    load_cameras,
    read_depth,
    read_transforms,
    write_transforms,
)
from dpdy_core.ingest.flow import grey
from dpdy_core.ingest.pieces import resized_masks
from dpdy_core.ingest.pinhole import pinholes
from dpdy_core.ingest.portions import Portions
from dpdy_core.ingest.posed_clip import PosedClip
from dpdy_core.ingest.second_masks import refine_masks, restore_masks, static_parts, to_be_refined
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.standing import standing_depth
from dpdy_core.ingest.stereo import Swept, sweep_clip
from dpdy_core.ingest.triangulate import triangulate
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, write_atomic
from dpdy_core.runtime import resolve_device

MATCH_SIZE = 480  # longer side at which points are triangulated, pixels
MIN_POINTS = 60  # sparse points of the clip below which nothing is aligned
SCALE_TOLERANCE = 0.05  # a metric depth off by less is left as it is
USELESS = 0.7  # depth whose error is more than this share of a constant depth's is worse than none
HARMLESS = 0.05  # unless the error is this small: a flat scene
BAD_RESIDUAL = 0.15  # median relative error after alignment that a user should know of
WEIGHTS = {"points": 1.0, "model": 3.0, "sweep": 2.0, "masks": 5.0}  # about the time that each part takes
FARTHEST = 60.0  # times the clip's median depth: what lies beyond is put there, so that 16 bits suffice


def estimate_depth(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Stage: `capture/depth/` of the training frames, planar z in camera units, `depth_kind: metric`.

    The capture's depth or a model's is aligned once for the clip to sparse static points; without either a plane sweep
    finds the static pixels, and movers get the depth of the ground that they stand on. Where no scale can be found (the
    camera stands still), depth is left out and said so. Motion masks that were found by flow are refined on the way.
    """
    document = read_transforms(run.capture)
    frames = frames_of(document, "train")
    restore_masks(frames)
    clip = PosedClip(run.capture, frames, load_cameras(document, frames))
    source = _source(config, frames)
    portions = Portions(reporter, _weights(run, clip, source, config))
    depth: list[np.ndarray] | None = None
    numbers: dict[str, float] = {}
    points = None if source == "none" else _points(run, clip, portions)
    if points is not None and source == "sweep":
        swept = _swept(clip, points, config, portions)
        numbers, resting = refine_masks(run, clip, None if swept is None else swept.believed, config, portions)
        if swept is not None:
            depth, found = _believed(swept, clip, points, resting, config, reporter)
            numbers |= found
    else:
        believed = None
        if points is not None:
            depth, numbers = _aligned(clip, document, points, source, config, portions)
            believed = None if depth is None else static_parts(depth, config.depth.max_size)
        numbers |= refine_masks(run, clip, believed, config, portions)[0]
    for frame in frames:
        frame.pop("depth_file_path", None)
    document.pop("depth_source", None)
    if depth is not None:
        _write(run, document, frames, depth)
        document["depth_source"] = source
    write_transforms(run.capture, document)
    portions.tell(**numbers)


def _source(config: RunConfig, frames: list[dict[str, Any]]) -> str:
    given = any("user_depth_file_path" in f for f in frames)
    match config.depth.source:
        case "auto":
            return "capture" if given else "model" if config.depth.model else "sweep"
        case "capture" if not given:
            raise BadInput("the capture has no depth for its training frames", "set depth.source to auto or sweep")
        case "model" if not config.depth.model:
            raise BadSettings(
                "depth.source is model but depth.model is not set", "set depth.model to a folder or hub id"
            )
        case chosen:
            return chosen


def _weights(run: RunDir, clip: PosedClip, source: str, config: RunConfig) -> dict[str, float]:
    """WEIGHTS of the parts of the stage that there will be."""
    parts = {
        "points": source != "none" and not (run.capture / POINTS_FILE).exists(),
        "model": source == "model",
        "sweep": source == "sweep",
        "masks": to_be_refined(clip, config),
    }
    return {part: WEIGHTS[part] for part, there in parts.items() if there}


def _points(run: RunDir, clip: PosedClip, portions: Portions) -> SparsePoints:
    """The points that structure from motion left, else triangulated with the capture's poses."""
    stored = run.capture / POINTS_FILE
    if stored.exists():
        return SparsePoints.load(stored)
    full = (clip.cameras.width, clip.cameras.height)
    size = fitted_size(*full, MATCH_SIZE)
    return triangulate(
        [grey(image) for image in clip.images(size)],
        clip.static(size),
        pinholes(clip.cameras.resized(*size)),
        [f["file_path"] for f in clip.frames],
        (full[0] / size[0], full[1] / size[1]),
        portions.part("points"),
    )


def _swept(clip: PosedClip, points: SparsePoints, config: RunConfig, portions: Portions) -> Swept | None:
    if len(points.depth) < MIN_POINTS:
        portions.reporter.fall_back(f"{_no_parallax(points)}: no depth is used")
        return None
    size = fitted_size(clip.cameras.width, clip.cameras.height, config.depth.max_size)
    greys = np.stack([grey(image) for image in clip.images(size)])
    cameras, device = clip.cameras.resized(*size), resolve_device(config.device)
    static = np.stack(clip.static(size))
    return sweep_clip(greys, static, cameras, points, config.depth, device, portions.part("sweep"))


def _believed(
    swept: Swept,
    clip: PosedClip,
    points: SparsePoints,
    resting: np.ndarray | None,
    config: RunConfig,
    reporter: Reporter,
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Depth of what stands still, with a guess where something moves, and numbers that tell of it.

    `resting` (T, h, w) bool is what is masked and hardly moves, such as the foot of what sways.
    """
    size = (swept.cameras.width, swept.cameras.height)
    still = np.stack(clip.static(size))
    if resting is not None:
        still |= resized_masks(resting, size)
    depth = swept.believed(still)
    found = float((depth > 0).mean())
    if found < 0.1:
        reporter.warn(
            f"the plane sweep found depth for only {found:.0%} of the pixels (low texture or little parallax)"
        )
    if config.depth.standing:
        for values, moving, camera in zip(depth, clip.moving(size), pinholes(swept.cameras.to("cpu")), strict=True):
            guessed = standing_depth(np.where(moving, 0, values), moving, camera.k)
            values[values == 0] = guessed[values == 0]
    guesses = float((depth > 0).mean()) - found
    numbers = {"pixels_with_depth": found, "pixels_guessed": guesses, "sparse_points": float(len(points.depth))}
    return list(depth), numbers


def _no_parallax(points: SparsePoints) -> str:
    return f"only {len(points.depth)} static points have parallax (the camera hardly moves, or there is little texture)"


def _aligned(
    clip: PosedClip, document: dict[str, Any], points: SparsePoints, source: str, config: RunConfig, portions: Portions
) -> tuple[list[np.ndarray] | None, dict[str, float]]:
    """Depth of the capture or of a model in the scale of the cameras, and numbers that tell of it."""
    reporter = portions.reporter
    if source == "model":
        values, kind = _predicted(clip, config, portions)
    else:
        values, kind = _given(clip, document, reporter)
    at_points, depths = _samples(clip, values, points)
    if sum(map(len, depths)) < MIN_POINTS:
        if kind == "metric" and source == "capture" and "pose_source" not in document:
            reporter.warn(f"{_no_parallax(points)}: the scale of the capture's depth could not be checked")
            return values, {}
        reporter.fall_back(f"{_no_parallax(points)}: depth cannot be brought to the cameras' scale and is left out")
        return None, {}
    alignment = align_clip(at_points, depths, kind, np.random.default_rng(config.seed))
    if alignment is None:
        reporter.fall_back("depth could not be aligned to the cameras and is left out")
        return None, {}
    if alignment.residual > max(USELESS * alignment.level, HARMLESS):
        reporter.fall_back(
            f"depth does not follow the scene (median relative error {alignment.residual:.0%} after alignment, "
            f"one depth for everything has {alignment.level:.0%}) and is left out"
        )
        return None, {}
    scale = float(alignment.lines[0][0])
    numbers = {"depth_residual": float(alignment.residual), "points": float(alignment.points), "scale": scale}
    _warn_of_misfit(scale, alignment.residual, kind, source, document, reporter)
    if kind == "metric" and abs(scale - 1) < SCALE_TOLERANCE:
        return values, numbers
    aligned = [
        np.where(v > 0, apply(v, line, kind), 0)
        if kind != "relative_disparity" or source == "capture"
        else apply(v, line, kind)
        for v, line in zip(values, alignment.lines, strict=True)
    ]
    return aligned, numbers


def _warn_of_misfit(
    scale: float, residual: float, kind: DepthKind, source: str, document: dict[str, Any], reporter: Reporter
) -> None:
    expected = source == "capture" and "pose_source" not in document  # poses and depth came together
    if kind == "metric" and expected and abs(scale - 1) >= SCALE_TOLERANCE:
        reporter.warn(f"the capture's depth disagrees with its cameras: scaled by {scale:.4g} for the whole clip")
    if residual > BAD_RESIDUAL:
        reporter.warn(f"depth fits the cameras badly: median relative error {residual:.0%} at the sparse points")


def _predicted(clip: PosedClip, config: RunConfig, portions: Portions) -> tuple[list[np.ndarray], DepthKind]:
    # transformers takes seconds to import and only this branch needs it.
    from dpdy_core.ingest.monocular import DepthModel

    size = (clip.cameras.width, clip.cameras.height)
    model = DepthModel(str(config.depth.model), resolve_device(config.device))
    return model.predict(clip.images(size), portions.part("model")), model.kind


def _given(clip: PosedClip, document: dict[str, Any], reporter: Reporter) -> tuple[list[np.ndarray], DepthKind]:
    """The capture's own depth, in its own unit, 0 = none."""
    size = (clip.cameras.width, clip.cameras.height)
    unit = float(document.get("user_depth_unit_scale_factor", 0.001))
    empty = np.zeros((size[1], size[0]), np.float32)
    key = "user_depth_file_path"
    values = [read_depth(clip.capture / f[key], unit, size) if key in f else empty for f in clip.frames]
    lacking = sum(key not in f for f in clip.frames)
    if lacking:
        reporter.warn(f"{lacking} of {len(clip.frames)} training frames have no depth")
    kind: DepthKind = document.get("user_depth_kind", document.get("depth_kind", "metric"))
    document["user_depth_kind"] = kind  # `depth_kind` is about to speak of the result
    return values, kind


def _samples(
    clip: PosedClip, values: list[np.ndarray], points: SparsePoints
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Values and true depths at the sparse points of each frame, where there is a value."""
    sampled, depths = [], []
    for frame, value in zip(clip.frames, values, strict=True):
        xy, depth = points.seen_by(frame["file_path"])
        column = np.clip(xy[:, 0].astype(int), 0, value.shape[1] - 1)
        row = np.clip(xy[:, 1].astype(int), 0, value.shape[0] - 1)
        found = value[row, column].astype(np.float64)
        known = (found > 0) & (depth > 0)
        sampled.append(found[known])
        depths.append(depth[known])
    return sampled, depths


def _write(run: RunDir, document: dict[str, Any], frames: list[dict[str, Any]], depth: list[np.ndarray]) -> None:
    """Store 16-bit PNGs of the images' size with one unit for the clip."""
    size = (int(document["w"]), int(document["h"]))
    known = np.concatenate([d[(d > 0) & np.isfinite(d)][::7] for d in depth])
    farthest = min(max((float(d[np.isfinite(d)].max(initial=0)) for d in depth), default=0), _limit(known))
    unit = max(farthest, 1e-6) / 65535
    for frame, values in zip(frames, depth, strict=True):
        raw = np.rint(np.clip(values, 0, farthest) / unit).astype(np.uint16)
        raw = cv2.resize(raw, size, interpolation=cv2.INTER_NEAREST)
        inside = PurePosixPath(frame["file_path"])
        name = inside.relative_to("images") if inside.is_relative_to("images") else inside
        relative = PurePosixPath("depth") / name.with_suffix(".png")
        write_atomic(run.capture / relative, lambda path, raw=raw: _imwrite(path, raw))  # type: ignore[misc]
        frame["depth_file_path"] = str(relative)
    document["depth_unit_scale_factor"] = unit
    document["depth_kind"] = "metric"


def _limit(known: np.ndarray) -> float:
    return FARTHEST * float(np.median(known)) if len(known) else 1.0


def _imwrite(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f"cannot write {path}")
