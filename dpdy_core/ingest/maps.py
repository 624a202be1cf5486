"""Depth maps and masks of a given capture, brought to the size of the stored frames. Torch-free.

Always nearest neighbour, centre to centre: a mean of a near and a far depth is a depth that nobody measured.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap, check_shape
from dpdy_core.ingest.images import opened, read_opaque
from dpdy_core.ingest.lens import Lens, undistortion

_DEEPEST = 65535


def check_mask(path: Path, size: tuple[int, int]) -> None:
    """Raise BadInput unless `path` is a mask of the shape, not necessarily the size, of its image."""
    with opened(path) as image:
        check_shape(path, image.size, size)


def check_content(depths: Sequence[DepthMap], masks: Sequence[Path]) -> None:
    """Raise BadInput if none of some depth maps holds a depth, or none of some masks (0 = ignore) leaves a pixel."""
    if depths and not any((depth.read() > 0).any() for depth in depths):
        raise BadInput(
            f"the depth maps hold no depth ({depths[0].path.name} and others are 0 everywhere)",
            "export the depth again, or leave it out: it is then estimated",
        )
    if masks and not any((_read_mask(path) > 127).any() for path in masks):
        raise BadInput(
            f"the masks leave no pixel to train on ({masks[0].name} and others are 0 everywhere)",
            "a mask is 0 where a pixel is to be ignored and 255 elsewhere; invert the masks",
        )


def depth_step(maps: Sequence[DepthMap], unit: float) -> tuple[float, float]:
    """How depths of the capture become 16-bit: (factor on the stored values, unit of the result).

    Integers are kept as they are, with their unit. If any map holds floats, the largest value of all becomes 65535.
    """
    if not any(depth.is_float for depth in maps):
        return 1.0, unit
    largest = max(float(depth.read().max()) for depth in maps)
    return (_DEEPEST / largest, unit * largest / _DEEPEST) if largest > 0 else (1.0, unit)


def convert_depth(depth: DepthMap, factor: float, source: tuple[int, int], lens: Lens | None) -> np.ndarray:
    """(H, W) uint16 at the image's `source` size (width, height), undistorted: `factor` times the stored values."""
    values = np.clip(np.rint(depth.read() * factor), 0, _DEEPEST).astype(np.uint16)
    return _straight(_nearest(values, source), lens)


def convert_alpha(path: Path, lens: Lens | None) -> np.ndarray | None:
    """(H, W) uint8, 0 or 255, undistorted: 255 where the image is opaque; None where it is so everywhere."""
    seen = read_opaque(path)
    return None if seen.all() else _straight(np.where(seen, 255, 0).astype(np.uint8), lens)


def convert_mask(path: Path, source: tuple[int, int], lens: Lens | None) -> np.ndarray:
    """(H, W) uint8, 0 or 255, at the image's `source` size, undistorted: 255 where the file is above half."""
    return _straight(_nearest(np.where(_read_mask(path) > 127, 255, 0).astype(np.uint8), source), lens)


def _read_mask(path: Path) -> np.ndarray:
    """(h, w) uint8 as stored."""
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if mask is None:
        raise BadInput(f"{path.name} is not a mask that can be read", "use an 8-bit PNG of 0 and 255")
    grey: np.ndarray = mask
    return grey


def write_map(path: Path, values: np.ndarray, size: tuple[int, int]) -> None:
    """Store a mask (uint8) or depth map (uint16) at `size` (width, height) as one-channel PNG."""
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), _nearest(values, size)):
        raise OSError(f"could not write {path}")


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if (values.shape[1], values.shape[0]) == size:
        return values
    return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _straight(values: np.ndarray, lens: Lens | None) -> np.ndarray:
    if lens is None or not lens.is_distorted:
        return values
    x, y, valid = undistortion(lens, values.shape[1], values.shape[0])
    return np.where(valid, cv2.remap(values, x, y, cv2.INTER_NEAREST), 0).astype(values.dtype)
