"""Reader of Record3D exports: `.r3d` recordings and "EXR + RGB" folders. Torch-free.

Layout as in nerfstudio's process_data/record3d_utils.py. ARKit's poses are OpenGL camera-to-world; the intrinsics are
those of the size `w` x `h`; depth is planar, in metres, at a size of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap
from dpdy_core.ingest.document import number, numbers, read_document
from dpdy_core.ingest.frames import MAX_FRAMES, SourceCapture, SourceFrame, common_size, inside, list_images
from dpdy_core.ingest.images import MAX_IMAGE_PIXELS, is_lossless
from dpdy_core.ingest.lens import Lens, read_lens
from dpdy_core.ingest.pose import read_pose

_AGAIN = "export the recording again from Record3D"


@dataclass(frozen=True)
class _Export:
    """Where an export keeps things."""

    folder: Path
    metadata: str
    images: str
    depth: str  # a name with {} for the frame's number
    confidence: str | None


def is_record3d(folder: Path) -> bool:
    """Whether `folder` looks like an unpacked recording or an EXR export."""
    return _export(folder) is not None


def read_record3d(folder: Path) -> SourceCapture:
    """The recording in `folder`: images, poses, intrinsics and times of every frame, depth where there is any, in
    metres. Depth that ARKit itself does not trust is left out. Raises BadInput.
    """
    export = _export(folder)
    if export is None:
        raise BadInput("the folder is no Record3D export", _AGAIN)
    metadata = read_document(inside(folder, export.metadata, export.metadata))
    poses = metadata.get("poses")
    if not isinstance(poses, list) or not 2 <= len(poses) <= MAX_FRAMES:
        raise BadInput(f"{export.metadata} has no list of 2 to {MAX_FRAMES} poses", _AGAIN)
    images = _images(export, len(poses))
    size = common_size(images, upright=False)
    times = _times(metadata, len(poses), export.metadata)
    frames = []
    for index, (image, written) in enumerate(zip(images, poses, strict=True)):
        where = f"frame {index} in {export.metadata}"
        depth = _depth(export, metadata, index)
        if depth is not None:
            depth.check(size)
        frames.append(
            SourceFrame(
                name=f"{index:05d}",
                image=image,
                time=float(times[index]),
                pose=_pose(written, where),
                lens=_lens(metadata, index, len(poses), where, size),
                depth=depth,
            )
        )
    fps = None if metadata.get("fps") is None else number(metadata["fps"], "fps", export.metadata)
    if fps is not None and not 0 < fps <= 1000:
        raise BadInput(f"fps of {export.metadata} is {fps:g}", "give the frames per second of the recording")
    return SourceCapture(
        kind="record3d",
        frames=frames,
        width=size[0],
        height=size[1],
        upright=False,
        lossless=all(is_lossless(path) for path in images),
        fps=fps,
        depth_unit=1.0,
    )


def _export(folder: Path) -> _Export | None:
    if (folder / "metadata").is_file() and (folder / "rgbd").is_dir():
        return _Export(folder, "metadata", "rgbd", "rgbd/{}.depth", "rgbd/{}.conf")
    for base in ("", "EXR_RGBD/"):
        if (folder / f"{base}metadata.json").is_file() and (folder / f"{base}rgb").is_dir():
            return _Export(folder, f"{base}metadata.json", f"{base}rgb", f"{base}depth/{{}}.exr", None)
    return None


def _images(export: _Export, count: int) -> list[Path]:
    """The images 0, 1, ... `count` - 1, whatever their ending."""
    found = {path.stem: path.name for path in list_images(export.folder / export.images)}
    missing = [index for index in range(count) if str(index) not in found]
    if missing or len(found) > count:
        what = f"image {missing[0]} of {export.images} is missing" if missing else f"{len(found)} images"
        raise BadInput(f"{export.metadata} has {count} poses but {what}", _AGAIN)
    return [
        inside(export.folder, f"{export.images}/{found[str(index)]}", f"image {index} of the recording")
        for index in range(count)
    ]


def _times(metadata: dict[str, Any], count: int, where: str) -> np.ndarray:
    """(count,) times in [0, 1]: the time stamps' if there are any, else equal steps."""
    if metadata.get("frameTimestamps") is None:
        return np.linspace(0, 1, count)
    stamps = np.array(numbers(metadata["frameTimestamps"], count, "frameTimestamps", where))
    if (np.diff(stamps) < 0).any() or stamps[0] == stamps[-1]:
        raise BadInput(f"frameTimestamps of {where} do not rise", _AGAIN)
    times: np.ndarray = (stamps - stamps[0]) / (stamps[-1] - stamps[0])
    return times


def _pose(written: object, where: str) -> np.ndarray:
    """(4, 4) of [qx, qy, qz, qw, tx, ty, tz]."""
    values = np.array(numbers(written, 7, "the pose", where))
    length = float(np.linalg.norm(values[:4]))
    if abs(length - 1) > 1e-2:
        raise BadInput(f"the quaternion of {where} has length {length:.3g}, not 1", _AGAIN)
    x, y, z, w = values[:4] / length
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return read_pose(np.column_stack([rotation, values[4:]]), f"the pose of {where}", _AGAIN)


def _lens(metadata: dict[str, Any], index: int, count: int, where: str, size: tuple[int, int]) -> Lens:
    """The frame's own intrinsics (autofocus moves them) if there are any, else those of the recording."""
    coefficients = metadata.get("perFrameIntrinsicCoeffs")
    if coefficients:
        if not isinstance(coefficients, list) or len(coefficients) != count:
            raise BadInput(f"perFrameIntrinsicCoeffs is not a list of {count} entries", _AGAIN)
        fx, fy, cx, cy = numbers(coefficients[index], 4, "perFrameIntrinsicCoeffs", where)
    else:
        k = numbers(metadata.get("K"), 9, "K", where)  # column by column
        fx, fy, cx, cy = k[0], k[4], k[6], k[7]
    scales = []
    for key, actual in zip(("w", "h"), size, strict=True):
        scales.append(actual / _side(metadata.get(key, actual), key, where))
    if abs(scales[0] / scales[1] - 1) > 0.02:
        raise BadInput(
            f"the recording's w x h ({metadata.get('w')}x{metadata.get('h')}) has another shape than its"
            f" {size[0]}x{size[1]} images",
            _AGAIN,
        )
    x, y = scales
    lens = read_lens({"fl_x": fx * x, "fl_y": fy * y, "cx": cx * x, "cy": cy * y}, *size, where)
    if lens is None:
        raise BadInput(f"{where} has no focal length", _AGAIN)
    return lens


def _depth(export: _Export, metadata: dict[str, Any], index: int) -> DepthMap | None:
    name = export.depth.format(index)
    if not (export.folder / name).is_file():
        return None
    path = inside(export.folder, name, f"depth {index} of the recording")
    if export.confidence is None:
        return DepthMap(path)
    size = tuple(_side(metadata.get(key), key, export.metadata) for key in ("dw", "dh"))
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise BadInput(f"depth of {size[0]}x{size[1]} pixels in {export.metadata} is too large", _AGAIN)
    trust = export.confidence.format(index)
    confidence = inside(export.folder, trust, trust) if (export.folder / trust).is_file() else None
    return DepthMap(path, (size[0], size[1]), confidence)


def _side(value: object, key: str, where: str) -> int:
    side = number(value, key, where)
    if not 1 <= side <= MAX_IMAGE_PIXELS or side != int(side):
        raise BadInput(f"{key} of {where} is {side:g}, not a number of pixels", _AGAIN)
    return int(side)
