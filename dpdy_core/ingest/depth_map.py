"""One depth map of a capture as its format stores it. Torch-free."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest import exr, lzfse_file
from dpdy_core.ingest.images import MAX_IMAGE_PIXELS, opened

_REMEDY = "use a one-channel 16-bit PNG or an (H, W) npy of numbers; 0 = none"


@dataclass(frozen=True)
class DepthMap:
    """A file with planar depth: 16-bit PNG, npy, EXR, or the `.depth` of a Record3D recording."""

    path: Path
    raw_size: tuple[int, int] | None = None  # (width, height) of a `.depth` file, which does not say
    confidence: Path | None = None  # a map of the same kind, 0 = not to be trusted: such depth is left out

    @property
    def is_float(self) -> bool:
        return self.path.suffix.lower() != ".png"

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadInput unless this has the shape, not necessarily the size, of its image (width, height)."""
        check_shape(self.path, self._size(), size)
        if self.confidence is not None:
            if self.raw_size is None:
                with opened(self.confidence) as image:
                    check_shape(self.confidence, image.size, size)
            else:
                lzfse_file.check(self.confidence, self.raw_size[0] * self.raw_size[1])

    def read(self) -> np.ndarray:
        """(h, w) as stored; not finite and negative values, and those without confidence, become 0."""
        values = self._stored()
        if self.is_float:
            values = np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float64)
        if self.confidence is not None:
            trust = self._confidence(self.confidence)
            if trust.shape != values.shape:
                trust = cv2.resize(trust, values.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            values = np.where(trust > 0, values, 0).astype(values.dtype)
        return values

    def _size(self) -> tuple[int, int]:
        if self.raw_size is not None:
            lzfse_file.check(self.path, 4 * self.raw_size[0] * self.raw_size[1])
            return self.raw_size
        match self.path.suffix.lower():
            case ".npy":
                rows, columns = _open_npy(self.path).shape
                return columns, rows
            case ".exr":
                return exr.size(self.path)
        with opened(self.path) as image:
            if image.format != "PNG" or image.mode not in ("I;16", "I;16B", "I", "L"):
                raise BadInput(f"{self.path.name} is {image.format} of mode {image.mode}, not a depth map", _REMEDY)
            return image.size

    def _stored(self) -> np.ndarray:
        if self.raw_size is not None:
            return lzfse_file.read(self.path, self.raw_size, np.dtype("<f4"))
        match self.path.suffix.lower():
            case ".npy":
                return np.array(_open_npy(self.path))
            case ".exr":
                return exr.read(self.path)
        values = cv2.imread(str(self.path), cv2.IMREAD_UNCHANGED)
        if values is None or values.ndim != 2:
            raise BadInput(f"{self.path.name} is not a depth map that can be read", _REMEDY)
        stored: np.ndarray = values
        return stored

    def _confidence(self, path: Path) -> np.ndarray:
        if self.raw_size is not None:
            return lzfse_file.read(path, self.raw_size, np.dtype(np.uint8))
        values = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if values is None:
            raise BadInput(f"{path.name} is not a confidence map that can be read", "export the capture again")
        stored: np.ndarray = values
        return stored


def check_shape(path: Path, found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise BadInput unless the map `path` of size `found` covers the view of an image of `size` (width, height)."""
    across, down = found[0] * size[1], found[1] * size[0]
    if abs(across - down) > 0.02 * max(across, down):
        raise BadInput(
            f"{path.name} has {found[0]}x{found[1]} pixels, another shape than its {size[0]}x{size[1]} image",
            "give depth maps and masks that cover the same view as their image",
        )


def _open_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header is parsed as Python: it can fail in any way
        raise BadInput(f"{path.name} is not a depth map that can be read ({error})", _REMEDY) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fui" or values.size > MAX_IMAGE_PIXELS:
        raise BadInput(f"{path.name} is not a depth map", _REMEDY)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    if values.ndim != 2 or values.size == 0:
        raise BadInput(f"{path.name} has shape {values.shape}, not (H, W)", _REMEDY)
    return values
