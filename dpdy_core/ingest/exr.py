"""Depth in OpenEXR files, as Record3D exports it. Torch-free."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.images import MAX_IMAGE_PIXELS

_REMEDY = "export depth as one-channel float EXR, 16-bit PNG or npy"
_CHANNELS = ("R", "Y", "Z", "V")  # Record3D writes R
_MOST_CHANNELS = 4


def size(path: Path) -> tuple[int, int]:
    """Width and height from the header. Raises BadInput for what is no EXR or too large."""
    header = _open(path, header_only=True).header()
    (left, top), (right, bottom) = header["dataWindow"]
    width, height = int(right) - int(left) + 1, int(bottom) - int(top) + 1
    if min(width, height) < 1 or width * height > MAX_IMAGE_PIXELS or len(header["channels"]) > _MOST_CHANNELS:
        raise BadInput(
            f"{path.name} has {width}x{height} pixels in {len(header['channels'])} channels, which is no depth map",
            _REMEDY,
        )
    return width, height


def read(path: Path) -> np.ndarray:
    """(H, W) float32 of the channel that holds depth."""
    size(path)
    file = _open(path, separate_channels=True)
    channels = file.channels() if file.parts else {}  # there are no parts if the pixels could not be decoded
    name = next((name for name in _CHANNELS if name in channels), next(iter(channels), None))
    values = None if name is None else np.asarray(channels[name].pixels)
    if values is None or values.ndim != 2 or values.dtype.kind not in "fu":
        raise BadInput(f"{path.name} has no depth that can be read", _REMEDY)
    return values.astype(np.float32)


def _open(path: Path, **options: bool) -> Any:
    try:
        import OpenEXR  # an optional dependency: few captures have EXR files
    except ImportError as error:
        raise BadInput(
            f"{path.name} is an EXR file and OpenEXR, which reads it, is not installed here",
            "install dpdy[record3d] on the server, or give depth as 16-bit PNG or npy",
        ) from error
    try:
        with redirect_stdout(sys.stderr):  # the binding prints what it thinks of damaged pixels
            return OpenEXR.File(str(path), **options)
    except Exception as error:  # the binding raises whatever the C++ library threw
        raise BadInput(f"{path.name} is not an EXR file that can be read", _REMEDY) from error
