"""A finished run as files for other programs: point cloud, frames, cameras."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip, load_clip, read_transforms
from dpdy_core.optimise.camera_corrections import load_corrections, refined
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.output.exported_cameras import write_colmap, write_nerfstudio
from dpdy_core.output.video import to_bytes
from dpdy_core.output.views import surface_depth
from dpdy_core.render.renderer import render_camera
from dpdy_core.rundir import RunDir, folder_atomic, write_atomic
from dpdy_core.runtime import resolve_device

MOST_POINTS = 1_000_000
MOST_VIEWS = 60  # training views that the point cloud is gathered from, evenly spaced in time
LARGEST_STEP = 0.05  # relative depth step to a neighbouring pixel above which a point hangs between two surfaces
POINT = np.dtype(
    {
        "names": ["x", "y", "z", "red", "green", "blue", "time", "dynamic"],
        "formats": ["<f4", "<f4", "<f4", "u1", "u1", "u1", "<f4", "u1"],
    }
)


def export_run(run: RunDir, kind: str, out: Path) -> Path:
    """Write the run as `kind` into folder `out` and return what was written.

    ply: `points.ply`, binary little endian, coordinates of the capture, with `time` in [0, 1] and `dynamic` 0 or 1 of
    every point (static points hold for all times). frames: `frames/`, the renders of all training views as PNG.
    transforms: `transforms.json`, a nerfstudio capture with its images. colmap: `colmap/`, a COLMAP text model with its
    images and sparse points. Raises BadSettings for another kind.
    """
    config = run.read_config()[0]
    match kind:
        case "ply":
            points = gather_points(run, config)
            cloud = PlyData([PlyElement.describe(points, "vertex")], text=False, byte_order="<")
            write_atomic(out / "points.ply", lambda partial: cloud.write(str(partial)))
            return out / "points.ply"
        case "frames":
            _write_frames(run, config, out / "frames")
            return out / "frames"
        case "transforms":
            document = _with_refined_cameras(run, config, read_transforms(run.capture))
            return write_nerfstudio(document, run.capture, out)
        case "colmap":
            document = _with_refined_cameras(run, config, read_transforms(run.capture))
            return write_colmap(document, run.capture, out / "colmap")
    raise BadSettings(f"cannot export to {kind!r}", "use ply, frames, transforms or colmap")


def gather_points(run: RunDir, config: RunConfig) -> np.ndarray:
    """Records (P,) of POINT: the rendered surfaces of training views at their times, thinned to a million points."""
    device = resolve_device(config.device)
    clip = _train(run, config).to(device)
    scene = load_scene(run.scene, device)
    chosen = sorted(set(torch.linspace(0, len(clip) - 1, min(MOST_VIEWS, len(clip))).round().long().tolist()))
    parts = []
    for index in chosen:
        time = float(clip.times[index])
        rendering = render_camera(scene, clip.cameras, index, time, config.render.chunk)
        depth = surface_depth(rendering)
        keep = (depth > 0) & ~_hanging(depth)
        places = _places(clip.cameras, index, depth)[keep].cpu().numpy()
        points = np.zeros(len(places), dtype=POINT)
        points["x"], points["y"], points["z"] = places.T
        colours = to_bytes(rendering.colour)[keep.cpu().numpy()]
        points["red"], points["green"], points["blue"] = colours.T
        points["time"] = time
        points["dynamic"] = (rendering.dynamic > 0.5)[keep].cpu().numpy()
        parts.append(points)
    points = np.concatenate(parts)
    if not len(points):
        raise BadInput("the scene shows no surface in any training view", "train it for more steps")
    return points[:: max(1, -(-len(points) // MOST_POINTS))]


def _write_frames(run: RunDir, config: RunConfig, folder: Path) -> None:
    device = resolve_device(config.device)
    clip = _train(run, config).to(device)
    scene = load_scene(run.scene, device)
    with folder_atomic(folder) as partial:
        for index, time in enumerate(clip.times.tolist()):
            rendering = render_camera(scene, clip.cameras, index, time, config.render.chunk)
            picture = cv2.cvtColor(to_bytes(rendering.colour), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(partial / f"{index:05d}_{Path(clip.names[index]).stem}.png"), picture)


def _train(run: RunDir, config: RunConfig) -> Clip:
    clip = load_clip(run.capture, "train", config.scene.max_size)
    if clip is None:
        raise BadInput("no training frame has a camera pose", "finish the run first")
    return refined(clip, run.scene)


def _with_refined_cameras(run: RunDir, config: RunConfig, document: dict[str, Any]) -> dict[str, Any]:
    """The capture's document with the poses that the scene stage corrected, if it did."""
    clip = load_clip(run.capture, "train", config.scene.max_size)
    if clip is None or (corrections := load_corrections(run.scene, clip)) is None:
        return document
    poses = dict(zip(clip.names, corrections.correct(clip.cameras).camera_to_world.tolist(), strict=True))

    def corrected(frame: dict[str, Any]) -> dict[str, Any]:
        pose = poses.get(frame["file_path"])
        return frame if pose is None else {**frame, "transform_matrix": [*pose, [0.0, 0.0, 0.0, 1.0]]}

    return {**document, "frames": [corrected(frame) for frame in document["frames"]]}


def _places(cameras: Cameras, index: int, depth: Tensor) -> Tensor:
    """(H, W, 3) world points of planar depth (H, W) seen by camera `index`."""
    origins, directions = cameras.image_rays(index)
    return origins + depth[..., None] * directions


def _hanging(depth: Tensor) -> Tensor:
    """(H, W) bool: the depth jumps to a neighbour, so the point may hang between foreground and background."""
    padded = torch.nn.functional.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    neighbours = torch.stack([padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]])
    return ((neighbours - depth).abs() > LARGEST_STEP * depth).any(dim=0)
