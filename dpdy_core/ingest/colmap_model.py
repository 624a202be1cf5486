"""COLMAP's sparse models, text and binary, as numbers. Torch-free.

Written from the format's description (https://colmap.github.io/format.html). pycolmap would read them too, but is an
optional dependency; 4.2.1 takes cut files for whole, allocates what a count asks for, and hangs on a name that does not
end. Here every count is held against the bytes that are left, and whatever is wrong is a BadInput.
"""

import mmap
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.frames import MAX_FRAMES
from dpdy_core.ingest.lens import unsupported

# id -> name and number of parameters (COLMAP, src/colmap/sensor/models.h)
CAMERA_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
}
_OTHERS = {
    7: "FOV",
    10: "THIN_PRISM_FISHEYE",
    11: "RAD_TAN_THIN_PRISM_FISHEYE",
    12: "SIMPLE_DIVISION",
    13: "DIVISION",
    16: "EUCM",
    17: "EQUIRECTANGULAR",
}
_PARAMETERS = dict(CAMERA_MODELS.values())
_MAX_BYTES = 2**30
_MAX_POINTS = 5_000_000
_MAX_LINE = 8 * 2**20
_MAX_SIDE = 100_000
_OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
_REMEDY = "export the model again (colmap model_converter), and copy it whole"


@dataclass(frozen=True)
class ColmapCamera:
    """Intrinsics in pixels of a width x height image, the centre of the first at (0.5, 0.5)."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """A registered image."""

    name: str
    camera: int
    rotation: tuple[float, ...]  # quaternion w x y z, world to camera; cameras look along +z, y down
    translation: tuple[float, ...]
    points: np.ndarray  # (K,) int64 ids of the points it sees


@dataclass(frozen=True)
class ColmapModel:
    """A sparse model as its files tell it; ids are COLMAP's own."""

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    point_ids: np.ndarray  # (P,) int64
    xyz: np.ndarray  # (P, 3)


def is_model(folder: Path) -> bool:
    """Whether a COLMAP model lies directly in `folder`."""
    return any((folder / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt"))


def read_model(folder: Path) -> ColmapModel:
    """The model in `folder`, binary where both are there; points are optional. Raises BadInput."""
    suffix = ".bin" if (folder / "cameras.bin").is_file() else ".txt"
    if not (folder / f"images{suffix}").is_file():
        raise BadInput(f"the COLMAP model has cameras{suffix} but no images{suffix}", _REMEDY)
    binary = suffix == ".bin"
    cameras: dict[int, ColmapCamera] = {}
    images: dict[int, ColmapImage] = {}
    path = folder / f"cameras{suffix}"
    try:
        for key, camera in (_binary_cameras if binary else _text_cameras)(path):
            if cameras.setdefault(key, camera) is not camera:
                raise BadInput(f"{path.name} lists camera {key} twice", _REMEDY)
        path = folder / f"images{suffix}"
        for key, image in (_binary_images if binary else _text_images)(path):
            if images.setdefault(key, image) is not image:
                raise BadInput(f"{path.name} lists image {key} twice", _REMEDY)
            if len(images) > MAX_FRAMES:
                raise BadInput(f"{path.name} lists more than {MAX_FRAMES} images", "leave out images")
        path = folder / f"points3D{suffix}"
        ids, xyz = np.zeros(0, np.int64), np.zeros((0, 3))
        if path.is_file():
            ids, xyz = (_binary_points if binary else _text_points)(path)
    except (ValueError, OverflowError) as error:  # words where numbers should be; text that is not UTF-8
        raise BadInput(f"{path.name} is damaged ({str(error)[:100]})", _REMEDY) from error
    return ColmapModel(cameras, list(images.values()), ids, xyz)


def _camera(model: str, width: int, height: int, parameters: tuple[float, ...], where: str) -> ColmapCamera:
    if not (0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE):
        raise BadInput(f"{where} has {width}x{height} pixels", _REMEDY)
    if len(parameters) != _PARAMETERS[model]:
        raise BadInput(f"{where} ({model}) has {len(parameters)} parameters, not {_PARAMETERS[model]}", _REMEDY)
    return ColmapCamera(model, width, height, parameters)


class _Bytes:
    """A binary file read from front to back, never beyond its end."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.at = 0
        size = _checked_size(path)
        with path.open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        start = self._advance(layout.size)
        return layout.unpack_from(self.data, start)

    def count(self, least: int, what: str) -> int:
        """The number of records of at least `least` bytes that follow."""
        (number,) = self.take(_COUNT)
        if number * least > len(self.data) - self.at:
            raise BadInput(f"{self.name} says that it holds {number} {what} but is too short for them", _REMEDY)
        return int(number)

    def string(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise BadInput(f"{self.name} holds a name that does not end", _REMEDY)
        return self.data[self._advance(end + 1 - self.at) : end].decode("utf-8")

    def skip(self, size: int) -> None:
        self._advance(size)

    def observations(self, count: int) -> np.ndarray:
        start = self._advance(count * _OBSERVATION.itemsize)
        return np.frombuffer(self.data, _OBSERVATION, count, start)

    def end(self) -> None:
        if self.at != len(self.data):
            raise BadInput(f"{self.name} has {len(self.data) - self.at} bytes too many", _REMEDY)

    def _advance(self, size: int) -> int:
        start = self.at
        if size > len(self.data) - start:
            raise BadInput(f"{self.name} is cut off after {len(self.data)} bytes", _REMEDY)
        self.at += size
        return start


_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = struct.Struct("<q3d3Bd")


def _checked_size(path: Path) -> int:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise BadInput(f"{path.name} is larger than {_MAX_BYTES // 2**30} GiB", "leave out images")
    return size


def _binary_cameras(path: Path) -> Iterator[tuple[int, ColmapCamera]]:
    file = _Bytes(path)
    for _ in range(file.count(_CAMERA.size, "cameras")):
        key, number, width, height = file.take(_CAMERA)
        if number not in CAMERA_MODELS:
            raise unsupported(_OTHERS.get(number, f"number {number}"), f"camera {key} of {path.name}")
        model, parameters = CAMERA_MODELS[number]
        values = file.take(struct.Struct(f"<{parameters}d"))
        yield key, _camera(model, width, height, values, f"camera {key} of {path.name}")
    file.end()


def _binary_images(path: Path) -> Iterator[tuple[int, ColmapImage]]:
    file = _Bytes(path)
    for _ in range(file.count(_IMAGE.size + 1 + _COUNT.size, "images")):
        key, *pose, camera = file.take(_IMAGE)
        name = file.string()
        points = file.observations(file.count(_OBSERVATION.itemsize, "observations"))["point"]
        yield key, ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:]), points[points >= 0])
    file.end()


def _binary_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    file = _Bytes(path)
    count = file.count(_POINT.size + _COUNT.size, "points")
    _check_points(count, path)
    ids, xyz = np.zeros(count, np.int64), np.zeros((count, 3))
    for index in range(count):
        ids[index], *place, _, _, _, _ = file.take(_POINT)
        xyz[index] = place
        file.skip(8 * file.count(8, "observations of a point"))
    file.end()
    return ids, xyz


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, blank ones included, comments not."""
    _checked_size(path)
    with path.open(encoding="utf-8-sig") as file:
        while line := file.readline(_MAX_LINE):
            if len(line) == _MAX_LINE:
                raise BadInput(f"{path.name} has a line of more than {_MAX_LINE // 2**20} MiB", _REMEDY)
            if not line.startswith("#"):
                yield line.strip()


def _text_cameras(path: Path) -> Iterator[tuple[int, ColmapCamera]]:
    for line in filter(None, _lines(path)):
        key, model, width, height, *parameters = line.split()
        where = f"camera {key[:20]} of {path.name}"
        if model not in _PARAMETERS:
            raise unsupported(model[:40], where)
        yield int(key), _camera(model, int(width), int(height), tuple(map(float, parameters)), where)


def _text_images(path: Path) -> Iterator[tuple[int, ColmapImage]]:
    """Two lines an image; the second, what it observes, may be blank."""
    lines = _lines(path)
    for line in lines:
        if not line:
            continue
        key, qw, qx, qy, qz, tx, ty, tz, camera, name = line.split(None, 9)
        observed = next(lines, "").split()
        if len(observed) % 3:
            raise BadInput(f"the line after image {key[:20]} of {path.name} does not list observations", _REMEDY)
        points = np.array([int(point) for point in observed[2::3]], dtype=np.int64)
        rotation, translation = tuple(map(float, (qw, qx, qy, qz))), tuple(map(float, (tx, ty, tz)))
        yield int(key), ColmapImage(name, int(camera), rotation, translation, points[points >= 0])


def _text_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    ids, places = array("q"), array("d")
    for line in filter(None, _lines(path)):
        key, x, y, z, _ = line.split(None, 4)
        ids.append(int(key))
        places.extend((float(x), float(y), float(z)))
        _check_points(len(ids), path)
    return np.array(ids, dtype=np.int64), np.array(places).reshape(-1, 3)


def _check_points(count: int, path: Path) -> None:
    if count > _MAX_POINTS:
        raise BadInput(f"{path.name} lists more than {_MAX_POINTS} points", f"thin them out, or remove {path.name}")
