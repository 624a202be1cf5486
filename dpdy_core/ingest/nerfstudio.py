"""Reader of nerfstudio captures: `transforms.json` and the files it names, all checked. Torch-free.

Format: https://docs.nerf.studio/quickstart/data_conventions.html, with our optional keys (time, motion_mask_path,
covisible_path, depth_kind). OpenGL camera-to-world matrices; the centre of the top left pixel is at (0.5, 0.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap
from dpdy_core.ingest.document import number, read_document
from dpdy_core.ingest.frames import MAX_FRAMES, SourceCapture, SourceFrame, common_size, image_sizes, inside
from dpdy_core.ingest.images import image_size, is_lossless
from dpdy_core.ingest.lens import read_lens
from dpdy_core.ingest.maps import check_mask
from dpdy_core.ingest.pose import read_pose

TRANSFORMS = "transforms.json"

_DEPTH_KINDS = ("metric", "relative_depth", "relative_disparity")

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class _Entry:
    """One frame of the document that is in use."""

    name: str  # normalised file_path
    values: Mapping[str, Any]
    split: Split | None

    @property
    def where(self) -> str:
        return f"frame {self.name!r}"


def read_nerfstudio(folder: Path) -> SourceCapture:
    """The capture in `folder`, every path, number, matrix and header checked. Raises BadInput."""
    document = read_document(folder / TRANSFORMS)
    used = _in_splits(document, _entries(document))
    images = [_image(folder, entry) for entry in used]
    _check_sizes(document, used, images)
    size, sizes = image_sizes(images)
    warnings: list[str] = []
    times = _times(used, warnings)
    frames = [
        _frame(folder, document, entry, image, float(time), own)
        for entry, image, time, own in zip(used, images, times, sizes, strict=True)
    ]
    _check_poses(frames)
    fps = None if document.get("fps") is None else number(document["fps"], "fps", TRANSFORMS)
    if fps is not None and not 0 < fps <= 1000:
        raise BadInput(f"fps of {TRANSFORMS} is {fps:g}", "give the frames per second of the clip, or leave it out")
    return SourceCapture(
        kind="nerfstudio",
        frames=frames,
        width=size[0],
        height=size[1],
        upright=False,
        lossless=all(is_lossless(path) for path in images),
        fps=fps,
        depth_unit=_depth_unit(document),
        depth_kind=_depth_kind(document),
        warnings=warnings,
    )


def _normal(written: str) -> str:
    return "/".join(part for part in written.replace("\\", "/").split("/") if part not in ("", "."))


def _entries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The frames by normalised file_path, in the document's order."""
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise BadInput(f"{TRANSFORMS} has no frames", "list the images under `frames`")
    if len(frames) > MAX_FRAMES:
        raise BadInput(f"{TRANSFORMS} lists {len(frames)} frames, more than {MAX_FRAMES}", "leave out frames")
    entries: dict[str, dict[str, Any]] = {}
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise BadInput(f"frame {index} of {TRANSFORMS} has no file_path", "name its image")
        name = _normal(frame["file_path"])
        if name in entries:
            raise BadInput(f"{TRANSFORMS} lists {name!r} twice", "list every image once")
        entries[name] = frame
    return entries


def _in_splits(document: Mapping[str, Any], frames: Mapping[str, dict[str, Any]]) -> list[_Entry]:
    """The frames in use: those in a list if there is any list, else all."""
    split_of: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("train", "test", "val")  # what is in both of the last is for tests
    for split in splits:
        names = document.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadInput(f"{split}_filenames of {TRANSFORMS} is not a list of names", "give the frames' file_path")
        for name in map(_normal, names):
            if name not in frames:
                raise BadInput(f"{split}_filenames names {name!r}, which is no frame", "use the frames' file_path")
            if split_of.setdefault(name, split) == "train" != split:
                raise BadInput(
                    f"{name!r} is in {split_of[name]}_filenames and in {split}_filenames",
                    "put every frame in one split: training must not see test frames",
                )
    training = sum(split == "train" for split in split_of.values()) if split_of else len(frames)
    if training < 2:
        raise BadInput(f"{TRANSFORMS} gives {training} training frame(s)", "at least 2 are needed, better 20 or more")
    return [
        _Entry(name, values, split_of.get(name)) for name, values in frames.items() if not split_of or name in split_of
    ]


def _image(folder: Path, frame: _Entry) -> Path:
    written = frame.values["file_path"]
    if not Path(written).suffix:  # Blender's synthetic captures leave out the ending
        for suffix in (".png", ".jpg"):
            if (folder / (frame.name + suffix)).is_file():
                written = frame.name + suffix
    return inside(folder, written, f"file_path of {frame.where}")


def _check_sizes(document: Mapping[str, Any], frames: list[_Entry], images: list[Path]) -> None:
    """Raise BadInput unless the images have the size that is written; only frames that tell their own may differ."""
    sharing = [image for frame, image in zip(frames, images, strict=True) if not {"w", "h"} & frame.values.keys()]
    if sharing:
        _check_size(document, common_size(sharing, upright=False), TRANSFORMS)
    for frame, image in zip(frames, images, strict=True):
        if {"w", "h"} & frame.values.keys():
            _check_size(frame.values, image_size(image, upright=False), frame.where)


def _check_size(values: Mapping[str, Any], size: tuple[int, int], where: str) -> None:
    for key, actual in zip(("w", "h"), size, strict=True):
        if values.get(key) is not None and number(values[key], key, where) != actual:
            raise BadInput(
                f"{where} says {key} = {values[key]:g} but the images have {size[0]}x{size[1]} pixels",
                "name the images that the intrinsics belong to, or scale w, h, fl_x, fl_y, cx and cy with the images",
            )


def _times(frames: list[_Entry], warnings: list[str]) -> np.ndarray:
    """(T,) times in [0, 1]."""
    given = [number(f.values["time"], "time", f.where) for f in frames if f.values.get("time") is not None]
    if not given:
        warnings.append("the frames carry no time: their order is taken for it")
        return np.linspace(0, 1, len(frames))
    if len(given) < len(frames):
        missing = len(frames) - len(given)
        raise BadInput(f"{missing} of {len(frames)} frames have no time", "give it for all frames or for none")
    times = np.array(given)
    low, high = times.min(), times.max()
    if low == high:
        raise BadInput(f"all frames have the same time ({low:g})", "give each its own, or leave time out to use order")
    if low < 0 or high > 1:
        warnings.append(f"frame times run from {low:g} to {high:g}: they were scaled to 0..1")
        times = (times - low) / (high - low)
    return times


def _frame(
    folder: Path, document: Mapping[str, Any], entry: _Entry, image: Path, time: float, size: tuple[int, int]
) -> SourceFrame:

    def named(key: str) -> Path | None:
        written = entry.values.get(key)
        return None if written is None else inside(folder, written, f"{key} of {entry.where}")

    maps: dict[str, Any] = {key: named(f"{key}_path") for key in ("mask", "motion_mask", "covisible")}
    for path in maps.values():
        if path is not None:
            check_mask(path, size)
    matrix = entry.values.get("transform_matrix")
    depth_path = named("depth_file_path")
    depth = None if depth_path is None else DepthMap(depth_path)
    if depth is not None:
        depth.check(size)
    return SourceFrame(
        name=entry.name,
        image=image,
        time=time,
        split=entry.split,
        pose=None if matrix is None else read_pose(matrix, f"transform_matrix of {entry.where}"),
        lens=read_lens({**document, **entry.values}, *size, entry.where),
        size=size,
        depth=depth,
        **maps,
    )


def _check_poses(frames: list[SourceFrame]) -> None:
    posed = [frame for frame in frames if frame.pose is not None]
    if posed and len(posed) < len(frames):
        without = next(frame for frame in frames if frame.pose is None)
        raise BadInput(
            f"{len(frames) - len(posed)} of {len(frames)} frames have no transform_matrix (first: {without.name!r})",
            "give poses for all frames, or for none: they are then found from the images",
        )
    for frame in posed:
        if frame.lens is None:
            raise BadInput(f"frame {frame.name!r} has a pose but no focal length", "give fl_x or camera_angle_x")


def _depth_unit(document: Mapping[str, Any]) -> float:
    unit = number(document.get("depth_unit_scale_factor", 0.001), "depth_unit_scale_factor", TRANSFORMS)
    if unit <= 0:
        raise BadInput(f"depth_unit_scale_factor is {unit:g}", "give the size of one depth step in scene units")
    return unit


def _depth_kind(document: Mapping[str, Any]) -> str:
    kind = document.get("depth_kind", "metric")
    if kind not in _DEPTH_KINDS:
        raise BadInput(f"depth_kind is {kind!r}", f"use one of {', '.join(_DEPTH_KINDS)}")
    return str(kind)
