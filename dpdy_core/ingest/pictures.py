"""Pictures of a capture: what moves, how far things are, where the cameras were."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.ingest.camera_report import look_at_point
from dpdy_core.ingest.clip import frames_of, load_cameras, read_depth, read_image, read_mask, read_transforms
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.size import fitted_size
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.tiles import ACROSS, SIDE, sheet, tinted

WIDTH, HEIGHT, MARGIN = 480, 360, 24  # of the plot
MOST_POINTS = 1500


def mask_overlays(capture: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB: some training frames of a canonical capture, tinted by their motion masks; None without."""
    document = read_transforms(capture)
    frames = [frame for frame in frames_of(document, "train") if "motion_mask_path" in frame]
    size = fitted_size(int(document["w"]), int(document["h"]), SIDE)
    return sheet(
        [
            tinted(read_image(capture / f["file_path"], size), read_mask(capture / f["motion_mask_path"], size))
            for f in _some(frames)
        ]
    )


def depth_maps(capture: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB: depth of some training frames, near red, far blue, none black; None without depth."""
    document = read_transforms(capture)
    frames = _some([frame for frame in frames_of(document, "train") if "depth_file_path" in frame])
    size = fitted_size(int(document["w"]), int(document["h"]), SIDE)
    unit = float(document.get("depth_unit_scale_factor", 0.001))
    maps = [read_depth(capture / frame["depth_file_path"], unit, size) for frame in frames]
    known = np.concatenate([m[m > 0] for m in maps]) if maps else np.zeros(0)
    if len(known) == 0:
        return None
    near, far = (1 / np.percentile(known, share) for share in (2, 98))
    tiles = []
    for depth in maps:
        level = (1 / np.maximum(depth, 1e-9) - far) / max(near - far, 1e-9)
        colour = cv2.applyColorMap((level.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1]
        tiles.append(np.where(depth[..., None] > 0, colour, 0).astype(np.uint8))
    return sheet(tiles)


def camera_path(capture: Path) -> str | None:
    """An SVG of the training cameras seen along the direction in which they spread least, with the sparse points.

    None with fewer than two cameras. Colours are those of the page: `currentColor` and the variable `--accent`.
    """
    document = read_transforms(capture)
    frames = [frame for frame in frames_of(document, "train") if "transform_matrix" in frame]
    if len(frames) < 2:
        return None
    cameras = pinholes(load_cameras(document, frames))
    centres = np.array([camera.centre for camera in cameras])
    points = np.zeros((0, 3))
    if (capture / POINTS_FILE).is_file():
        points = SparsePoints.load(capture / POINTS_FILE).xyz
        points = points[:: max(1, len(points) // MOST_POINTS)]
    return _plot(cameras, centres, points)


def pictures_of(capture: Path) -> dict[str, np.ndarray | str | None]:
    """All pictures of a canonical capture, by name; None where the capture has nothing to show."""
    return {"masks": mask_overlays(capture), "depth": depth_maps(capture), "cameras": camera_path(capture)}


def _plot(cameras: list[Pinhole], centres: np.ndarray, points: np.ndarray) -> str:
    aim = look_at_point(cameras)
    reach = float(np.linalg.norm(np.ptp(centres, axis=0)))
    if aim is not None and np.linalg.norm(aim - centres, axis=1).max() > 20 * max(reach, 1e-9):
        aim = None
    shown = np.vstack([centres, *([aim[None]] if aim is not None else [])])
    up = np.mean([-camera.w2c[1, :3] for camera in cameras], axis=0)
    up /= max(np.linalg.norm(up), 1e-9)
    forward = np.mean([camera.w2c[2, :3] for camera in cameras], axis=0)
    forward -= (forward @ up) * up
    forward /= max(np.linalg.norm(forward), 1e-9)
    plane = np.stack([np.cross(forward, up), forward])
    flat = shown @ plane.T
    cloud = points @ plane.T
    if len(cloud):
        low, high = np.percentile(cloud, [5, 95], axis=0)
        flat = np.vstack([flat, low, high])
    middle, extent = (flat.min(0) + flat.max(0)) / 2, np.ptp(flat, axis=0)
    scale = min((WIDTH - 2 * MARGIN) / max(extent[0], 1e-9), (HEIGHT - 2 * MARGIN) / max(extent[1], 1e-9))

    def place(xyz: np.ndarray) -> np.ndarray:
        off = (xyz @ plane.T - middle) * scale
        return np.column_stack([WIDTH / 2 + off[:, 0], HEIGHT / 2 - off[:, 1]])

    dots = (
        "".join(f"M{x:.1f},{y:.1f}h.01" for x, y in place(points) if 0 <= x <= WIDTH and 0 <= y <= HEIGHT)
        if len(points)
        else ""
    )
    at = place(centres)
    axes = np.array([camera.w2c[2, :3] for camera in cameras]) @ plane.T
    ends = at + 16 * np.column_stack([axes[:, 0], -axes[:, 1]])
    looks = "".join(f"M{a:.1f},{b:.1f}L{c:.1f},{d:.1f}" for (a, b), (c, d) in zip(at, ends, strict=True))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="the cameras and the points they saw, from above">'
        f'<path d="{dots}" stroke="currentColor" stroke-opacity=".35" stroke-width="1.6" stroke-linecap="round"/>'
        f'<path d="{looks}" stroke="currentColor" stroke-opacity=".6"/>'
        f'<polyline points="{path}" fill="none" stroke="var(--accent, #b4471d)" stroke-width="2"/>'
        f'<circle cx="{at[0, 0]:.1f}" cy="{at[0, 1]:.1f}" r="4" fill="var(--accent, #b4471d)"/></svg>'
    )


def _some(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(ACROSS, len(frames))).round().astype(int))
    return [frames[i] for i in chosen]
