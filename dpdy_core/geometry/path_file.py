"""Camera paths as nerfstudio's JSON: `camera_path[]` with `camera_to_world` (16 numbers, row major), `fov` (vertical,
degrees), `aspect` and optional `render_time`; on top `render_width`, `render_height`, `fps`, `seconds`.

Poses are in the world of the capture's own `transforms.json`. Times are used only if every frame has one, as nerfstudio
does; otherwise the clip plays once from beginning to end.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpdy_core.errors import BadInput
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.geometry.paths import Trajectory, playing_times

MOST_FRAMES = 10_000
MOST_BYTES = 64 * 2**20
LARGEST_SIDE = 8192


def read_camera_path(path: Path, width: int, height: int, fps: float) -> Trajectory:
    """The trajectory in file `path`; `width`, `height` and `fps` stand in for what the file leaves out.

    Raises BadInput, naming the file, the frame and the field.
    """
    document = _read_document(path)
    frames = document.get("camera_path")
    if not isinstance(frames, list) or not frames:
        raise BadInput(f"{path.name}: camera_path is missing or empty", "export a camera path from nerfstudio's viewer")
    if len(frames) > MOST_FRAMES:
        raise BadInput(f"{path.name} has {len(frames)} frames", f"render at most {MOST_FRAMES} frames at once")
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise BadInput(f"{path.name}: camera_path[{index}] is not an object")
    if document.get("camera_type", "perspective") != "perspective":
        raise BadInput(
            f"{path.name}: camera_type {document['camera_type']!r} is not supported", "export a perspective camera path"
        )
    size = _size(document, frames, path.name, width, height)
    poses = torch.stack([_pose(frame, f"{path.name}: camera_path[{i}]") for i, frame in enumerate(frames)])
    fov = [_number(frame, "fov", f"{path.name}: camera_path[{i}]", 0.1, 179.0) for i, frame in enumerate(frames)]
    focal = torch.tensor([0.5 * size[1] / math.tan(math.radians(f) / 2) for f in fov])
    cameras = Cameras(
        camera_to_world=poses.float(),
        focal=focal[:, None].repeat(1, 2),
        principal=torch.tensor([[size[0] / 2, size[1] / 2]]).repeat(len(frames), 1),
        width=size[0],
        height=size[1],
    )
    return Trajectory(cameras, _times(frames, path.name, cameras), _rate(document, path.name, len(frames), fps))


def camera_path_document(trajectory: Trajectory) -> dict[str, Any]:
    """The trajectory as nerfstudio's document. The principal point is lost: the format has none."""
    cameras = trajectory.cameras
    bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    frames = []
    for pose, focal, time in zip(
        cameras.camera_to_world.cpu(), cameras.focal.cpu(), trajectory.times.tolist(), strict=True
    ):
        frames.append(
            {
                "camera_to_world": torch.cat([pose, bottom]).flatten().tolist(),
                "fov": math.degrees(2 * math.atan(0.5 * cameras.height / focal[1].item())),
                "aspect": cameras.width / cameras.height,
                "render_time": time,
            }
        )
    return {
        "camera_type": "perspective",
        "render_width": cameras.width,
        "render_height": cameras.height,
        "fps": trajectory.fps,
        "seconds": len(trajectory) / trajectory.fps,
        "camera_path": frames,
    }


def _read_document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path.name} is larger than {MOST_BYTES // 2**20} MiB", "thin out the camera path")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"there is no camera path {path.name!r}", "give the name of a path or a JSON file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path.name} is not readable as JSON: {error}", "export the camera path again") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path.name} is not a camera path: its top level is not an object")
    return document


def _number(holder: dict[str, Any], key: str, where: str, low: float, high: float) -> float:
    value = holder.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadInput(f"{where}: {key} is {value!r}, not a number from {low:g} to {high:g}")
    return float(value)


def _size(
    document: dict[str, Any], frames: list[dict[str, Any]], name: str, width: int, height: int
) -> tuple[int, int]:
    """Width and height in pixels; a missing width follows from the height and the first frame's `aspect`."""
    aspect = width / height
    if any("aspect" in frame for frame in frames):
        aspects = [_number(f, "aspect", f"{name}: camera_path[{i}]", 0.01, 100) for i, f in enumerate(frames)]
        aspect = aspects[0]
    if "render_height" in document:
        height = round(_number(document, "render_height", name, 16, LARGEST_SIDE))
    if "render_width" in document:
        return round(_number(document, "render_width", name, 16, LARGEST_SIDE)), height
    return max(16, min(LARGEST_SIDE, round(height * aspect))), height


def _pose(frame: dict[str, Any], where: str) -> Tensor:
    """(3, 4) float64 pose, its rotation made exactly orthonormal."""
    values = frame.get("camera_to_world")
    if (
        not isinstance(values, list)
        or len(values) != 16
        or any(isinstance(v, bool) or not isinstance(v, int | float) or not abs(v) < 1e9 for v in values)
    ):
        raise BadInput(f"{where}: camera_to_world is not 16 finite numbers", "write the 4x4 matrix row by row")
    matrix = torch.tensor([float(v) for v in values], dtype=torch.float64).reshape(4, 4)
    rotation = matrix[:3, :3]
    if not torch.allclose(matrix[3], matrix.new_tensor([0, 0, 0, 1]), atol=1e-4):
        raise BadInput(f"{where}: the last row of camera_to_world is not 0 0 0 1", "write the matrix row by row")
    left, singular, right = torch.linalg.svd(rotation)
    if (singular - 1).abs().max() > 0.01 or torch.linalg.det(rotation) < 0:
        raise BadInput(f"{where}: camera_to_world holds no rotation", "remove scale and mirroring from the matrix")
    return torch.cat([left @ right, matrix[:3, 3:]], dim=1)


def _times(frames: list[dict[str, Any]], name: str, cameras: Cameras) -> Tensor:
    if not all("render_time" in frame for frame in frames):
        return playing_times(len(frames), cameras)
    return torch.tensor([_number(f, "render_time", f"{name}: camera_path[{i}]", 0, 1) for i, f in enumerate(frames)])


def _rate(document: dict[str, Any], name: str, frames: int, fps: float) -> float:
    """Frames per second: the file's `fps`, else that which makes its `seconds`, else the given one."""
    if document.get("fps") is not None:
        return _number(document, "fps", name, 0.1, 240)
    if document.get("seconds") is not None:
        return min(240.0, max(0.1, frames / _number(document, "seconds", name, 0.001, 86400)))
    return fps
