"""The cameras of a run with their images, as captures that other programs and our own readers take."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.ingest.clip import load_cameras
from dpdy_core.ingest.colmap import TEST_LIST, TIME_LIST
from dpdy_core.ingest.pinhole import world_to_camera
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.rundir import folder_atomic, write_atomic, write_json

_INTRINSICS = ("fl_x", "fl_y", "cx", "cy")
_SPLITS = ("train_filenames", "val_filenames", "test_filenames")


def canonical_cameras(document: dict[str, Any]) -> dict[str, Any]:
    """The capture's document with only what describes the cameras and their images, as nerfstudio takes it.

    nerfstudio evaluates on val frames and wants all lists or none: without val frames the test frames stand in.
    """
    top = ("camera_model", "w", "h", *_INTRINSICS, "k1", "k2", "p1", "p2", "fps")
    own = ("file_path", "time", "transform_matrix", "mask_path", *_INTRINSICS)
    used = {name for key in _SPLITS for name in document[key]}
    posed = [f for f in document["frames"] if "transform_matrix" in f and f["file_path"] in used]
    load_cameras(document, posed)  # raises if the document does not describe cameras
    names = {frame["file_path"] for frame in posed}
    splits = {key: [name for name in document[key] if name in names] for key in _SPLITS}
    splits["val_filenames"] = splits["val_filenames"] or splits["test_filenames"]
    splits["test_filenames"] = splits["test_filenames"] or splits["val_filenames"]
    return {
        **{key: document[key] for key in top if key in document},
        **(splits if splits["test_filenames"] else {}),
        "frames": [{key: frame[key] for key in own if key in frame} for frame in posed],
    }


def write_nerfstudio(document: dict[str, Any], capture: Path, out: Path) -> Path:
    """`transforms.json` in folder `out` with the images and masks that it names."""
    cameras = canonical_cameras(document)
    for frame in cameras["frames"]:
        for key in ("file_path", "mask_path"):
            if key in frame:
                source = capture / frame[key]
                write_atomic(out / frame[key], lambda partial, source=source: _copy(source, partial))  # type: ignore[misc]
    write_json(out / "transforms.json", cameras)
    return out / "transforms.json"


def write_colmap(document: dict[str, Any], capture: Path, folder: Path) -> Path:
    """A COLMAP text model in `folder`/sparse/0 with `images`, `masks` and sparse points if there are any.

    Format: https://colmap.github.io/format.html; splits and times are in the lists that `ingest.colmap` reads. World
    as in the capture; cameras turn to the axes of OpenCV.
    """
    cameras = canonical_cameras(document)
    frames = cameras["frames"]
    names = {frame["file_path"]: frame["file_path"].removeprefix("images/") for frame in frames}
    points = SparsePoints.load(capture / POINTS_FILE) if (capture / POINTS_FILE).exists() else None
    with folder_atomic(folder) as partial:
        for frame in frames:
            _copy(capture / frame["file_path"], partial / "images" / names[frame["file_path"]])
            if "mask_path" in frame:
                _copy(capture / frame["mask_path"], partial / "masks" / f"{names[frame['file_path']]}.png")
        model = partial / "sparse" / "0"
        model.mkdir(parents=True)
        _write_model(cameras, names, points, capture, model)
        held_out = [*cameras.get("test_filenames", []), *cameras.get("val_filenames", [])]
        (model / TEST_LIST).write_text("".join(f"{names[name]}\n" for name in dict.fromkeys(held_out)))
        (model / TIME_LIST).write_text("".join(f"{f['time']!r} {names[f['file_path']]}\n" for f in frames))
    return folder


def _write_model(
    cameras: dict[str, Any], names: dict[str, str], points: SparsePoints | None, capture: Path, model: Path
) -> None:
    keys: dict[tuple[float, ...], int] = {}
    images, numbers = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of each point"], {}
    for number, frame in enumerate(cameras["frames"], start=1):
        intrinsics = tuple(float(frame.get(key, cameras.get(key))) for key in _INTRINSICS)
        key = keys.setdefault(intrinsics, len(keys) + 1)
        w2c = world_to_camera(np.array(frame["transform_matrix"]))
        numbers[frame["file_path"]] = number
        pose = " ".join(map(repr, [*quaternion(w2c[:, :3]).tolist(), *w2c[:, 3].tolist()]))
        images += [f"{number} {pose} {key} {names[frame['file_path']]}", _observations(points, frame["file_path"])]
    size = f"{cameras['w']} {cameras['h']}"
    lines = [f"{key} PINHOLE {size} {' '.join(map(repr, intrinsics))}" for intrinsics, key in keys.items()]
    (model / "cameras.txt").write_text("\n".join(["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY", *lines, ""]))
    (model / "images.txt").write_text("\n".join([*images, ""]))
    (model / "points3D.txt").write_text("\n".join(_points(points, numbers, capture)))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(4,) w x y z, w >= 0, of a rotation (3, 3): the eigenvector of Bar-Itzhack's matrix (2000, J. Guidance 23)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = [
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, yy - xx - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, zz - xx - yy],
    ]
    found: np.ndarray = np.linalg.eigh(np.array(matrix))[1][:, -1]
    return found if found[0] >= 0 else -found


def _observations(points: SparsePoints | None, name: str) -> str:
    if points is None or name not in points.frames:
        return ""
    chosen = points.frame == points.frames.index(name)
    rows = zip(points.xy[chosen].tolist(), points.point[chosen].tolist(), strict=True)
    return " ".join(f"{x!r} {y!r} {point + 1}" for (x, y), point in rows)


def _points(points: SparsePoints | None, numbers: dict[str, int], capture: Path) -> list[str]:
    """The lines of points3D.txt; a point has the colour that the first frame of its track has there."""
    lines = ["# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX of each observation"]
    if points is None:
        return [*lines, ""]
    tracks: dict[int, list[str]] = {}
    colours: dict[int, np.ndarray] = {}
    for index, name in enumerate(points.frames):
        chosen = points.frame == index
        if name not in numbers or not chosen.any():
            continue
        picture = cv2.cvtColor(cv2.imread(str(capture / name)), cv2.COLOR_BGR2RGB)
        seen = points.point[chosen].tolist()
        for place, (point, xy) in enumerate(zip(seen, points.xy[chosen].astype(int), strict=True)):
            tracks.setdefault(point, []).append(f"{numbers[name]} {place}")
            column, row = np.clip(xy, 0, [picture.shape[1] - 1, picture.shape[0] - 1])
            colours.setdefault(point, picture[row, column])
    for point, track in sorted(tracks.items()):
        xyz, colour = " ".join(map(repr, points.xyz[point].tolist())), " ".join(map(str, colours[point].tolist()))
        lines.append(f"{point + 1} {xyz} {colour} 0 {' '.join(track)}")
    return [*lines, ""]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
