"""Depth maps and masks of a given capture, brought to the size of the stored frames. Torch-free.

Always nearest neighbour, centre to centre: a mean of a near and a far depth is a depth that nobody measured.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.images import MAX_IMAGE_PIXELS, opened
from dpdy_core.ingest.lens import Lens, undistortion

_DEPTH_REMEDY = "use a one-channel 16-bit PNG or an (H, W) npy of numbers; 0 = none"
_DEEPEST = 65535


def _open_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path.name} is not a depth map that can be read ({error})", _DEPTH_REMEDY) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fui" or values.size > MAX_IMAGE_PIXELS:
        raise BadInput(f"{path.name} is not a depth map", _DEPTH_REMEDY)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    if values.ndim != 2 or values.size == 0:
        raise BadInput(f"{path.name} has shape {values.shape}, not (H, W)", _DEPTH_REMEDY)
    return values


def check_depth(path: Path, size: tuple[int, int]) -> None:
    """Raise BadInput unless `path` is a depth map of the shape, not necessarily the size, of its image."""
    if path.suffix.lower() == ".npy":
        rows, columns = _open_npy(path).shape
    else:
        with opened(path) as image:
            columns, rows = image.size
            if image.format != "PNG" or image.mode not in ("I;16", "I;16B", "I", "L"):
                raise BadInput(f"{path.name} is {image.format} of mode {image.mode}, not a depth map", _DEPTH_REMEDY)
    _check_shape(path, (columns, rows), size)


def check_mask(path: Path, size: tuple[int, int]) -> None:
    """Raise BadInput unless `path` is a mask of the shape, not necessarily the size, of its image."""
    with opened(path) as image:
        _check_shape(path, image.size, size)


def _check_shape(path: Path, found: tuple[int, int], size: tuple[int, int]) -> None:
    across, down = found[0] * size[1], found[1] * size[0]
    if abs(across - down) > 0.02 * max(across, down):
        raise BadInput(
            f"{path.name} has {found[0]}x{found[1]} pixels, another shape than its {size[0]}x{size[1]} image",
            "give depth maps and masks that cover the same view as their image",
        )


def _read_depth(path: Path) -> np.ndarray:
    """(h, w) as stored; not finite and negative values become 0."""
    if path.suffix.lower() == ".npy":
        measured = np.array(_open_npy(path), dtype=np.float64)
        return np.where(np.isfinite(measured) & (measured > 0), measured, 0)
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2:
        raise BadInput(f"{path.name} is not a depth map that can be read", _DEPTH_REMEDY)
    stored: np.ndarray = values
    return stored


def depth_step(paths: Sequence[Path], unit: float) -> tuple[float, float]:
    """How depths of the capture become 16-bit: (factor on the stored values, unit of the result).

    Integers are kept as they are, with their unit. If any map is npy, the largest value of all becomes 65535.
    """
    if not any(path.suffix.lower() == ".npy" for path in paths):
        return 1.0, unit
    largest = max(float(_read_depth(path).max()) for path in paths)
    return (_DEEPEST / largest, unit * largest / _DEEPEST) if largest > 0 else (1.0, unit)


def convert_depth(path: Path, factor: float, source: tuple[int, int], lens: Lens | None) -> np.ndarray:
    """(H, W) uint16 at the image's `source` size (width, height), undistorted: `factor` times the stored values."""
    depth = np.clip(np.rint(_read_depth(path) * factor), 0, _DEEPEST).astype(np.uint16)
    return _straight(_nearest(depth, source), lens)


def convert_mask(path: Path, source: tuple[int, int], lens: Lens | None) -> np.ndarray:
    """(H, W) uint8, 0 or 255, at the image's `source` size, undistorted: 255 where the file is above half."""
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if mask is None:
        raise BadInput(f"{path.name} is not a mask that can be read", "use an 8-bit PNG of 0 and 255")
    return _straight(_nearest(np.where(mask > 127, 255, 0).astype(np.uint8), source), lens)


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
