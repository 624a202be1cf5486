"""What the capture report says of cameras that were given or found."""

from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.ingest.clip import frames_of, load_cameras, read_transforms
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.verdict import judge
from dpdy_core.rundir import RunDir, read_json, write_json


def add_cameras(run: RunDir) -> None:
    """Add `cameras` to the run's capture report and judge anew; for after the cameras stage."""
    if run.capture_report_file.is_file():
        report = read_json(run.capture_report_file)
        write_json(run.capture_report_file, judge({**report, "cameras": describe_cameras(run.capture, report)}))


def describe_cameras(capture: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Of the training frames of a canonical capture with cameras.

    `source` (`capture` or `sfm`), `motion` (`moving`, `turning` or `static`; None where poses were given) and `note`
    (what was done instead of structure from motion), `registered_share` (interpolated poses do not count),
    `reprojection_error_px` (mean, at the stored size; None without structure from motion), `focal_deviation`
    (standard deviation of a focal length that was found, as a share of it; None where it was given or cannot be told),
    `multi_view_factor` (degrees per second), `baseline` (see `_baseline`).
    """
    document = read_transforms(capture)
    frames = [frame for frame in frames_of(document, "train") if "transform_matrix" in frame]
    cameras = pinholes(load_cameras(document, frames))
    points = SparsePoints.load(capture / POINTS_FILE) if (capture / POINTS_FILE).is_file() else None
    measured = sum(not frame.get("pose_interpolated", False) for frame in frames)
    error = None
    if points is not None and document.get("pose_source") == "sfm":
        error = reprojection_error(points, {f["file_path"]: c for f, c in zip(frames, cameras, strict=True)})
    return {
        "source": document.get("pose_source", "capture"),
        "motion": document.get("camera_motion"),
        "note": document.get("camera_note"),
        "registered_share": round(measured / max(report["chosen"]["train"], 1), 4),
        "reprojection_error_px": None if error is None else round(error, 3),
        "focal_deviation": _rounded(document.get("focal_deviation")),
        "multi_view_factor": _rounded(multi_view_factor(cameras, float(document["fps"]))),
        "baseline": _rounded(_baseline(cameras, points)),
    }


def multi_view_factor(cameras: list[Pinhole], fps: float) -> float | None:
    """Degrees per second by which the direction to the point that all cameras look at turns.

    DyCheck's angular effective multi-view factor (Gao et al., NeurIPS 2022; `compute_angular_emf` of
    KAIR-BAIR/dycheck). The point is the one nearest to the optical axes; None where these are parallel.
    """
    if len(cameras) < 2:
        return None
    centres = np.array([camera.centre for camera in cameras])
    point = look_at_point(cameras)
    if point is None:
        return None
    towards = point - centres
    length = np.linalg.norm(towards, axis=1, keepdims=True)
    if (length < 1e-9).any():
        return None
    towards = towards / length
    cosine = (towards[:-1] * towards[1:]).sum(1).clip(-1, 1)
    return float(np.degrees(np.arccos(cosine)).mean() * fps)


def look_at_point(cameras: list[Pinhole]) -> np.ndarray | None:
    """(3,) the point least far, in squares, from the optical axes of `cameras`; None where it is undetermined."""
    centres = np.array([camera.centre for camera in cameras])
    axes = np.array([camera.w2c[2, :3] for camera in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(0)
    if np.linalg.cond(total) > 1e8:
        return None
    point: np.ndarray = np.linalg.solve(total, np.einsum("nij,nj->i", across, centres))
    return point


def reprojection_error(points: SparsePoints, cameras: dict[str, Pinhole]) -> float | None:
    """Mean distance in pixels between the sparse points and where the frames saw them."""
    errors = []
    for number, name in enumerate(points.frames):
        chosen = points.frame == number
        if name in cameras and chosen.any():
            pixels, _ = cameras[name].project(points.xyz[points.point[chosen]])
            errors.append(np.linalg.norm(pixels + 0.5 - points.xy[chosen], axis=1))
    return float(np.concatenate(errors).mean()) if errors else None


def _baseline(cameras: list[Pinhole], points: SparsePoints | None) -> float | None:
    """How far apart the two farthest cameras are, as a share of the usual distance of the sparse points."""
    if points is None or len(points.depth) == 0:
        return None
    centres = np.array([camera.centre for camera in cameras])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1).max()
    return float(apart / np.median(points.depth))


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 4)
