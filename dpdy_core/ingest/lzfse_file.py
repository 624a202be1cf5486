"""Raw maps compressed with LZFSE, as in Record3D's r3d files. Torch-free.

The block headers are those of Apple's reference implementation (lzfse/lzfse: src/lzfse_internal.h).
"""

import struct
from pathlib import Path

import numpy as np

from dpdy_core.errors import BadInput

_REMEDY = "export the recording again from Record3D"
_SLACK = 4096  # what incompressible data may grow by
_BLOCK = 8192  # raw bytes; the reference encoder ends a block at 40,000 literals or 10,000 matches, not sooner


def check(path: Path, expected: int) -> None:
    """Raise BadInput unless the file promises `expected` bytes and no more work than these need."""
    if path.stat().st_size > expected + _SLACK:
        raise BadInput(f"{path.name} is larger than the map it should hold ({expected} bytes)", _REMEDY)
    data = path.read_bytes()
    if len(data) == expected:  # stored without compression
        return
    blocks, promised = _blocks(data)
    if promised != expected or blocks > 2 + expected // _BLOCK:
        raise BadInput(
            f"{path.name} does not hold the {expected} bytes that the recording's metadata speaks of", _REMEDY
        )


def read(path: Path, size: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """(h, w) of `dtype`: the map of `size` (width, height)."""
    expected = size[0] * size[1] * dtype.itemsize
    check(path, expected)
    data = path.read_bytes()
    if len(data) != expected:
        data = _decompress(path, data)
    if len(data) != expected:
        raise BadInput(f"{path.name} unpacks to {len(data)} bytes instead of {expected}", _REMEDY)
    return np.frombuffer(data, dtype).reshape(size[1], size[0])


def _blocks(data: bytes) -> tuple[int, int]:
    """How many `bvx2` blocks a stream has and how many bytes all blocks promise; (0, 0) if it is no whole stream.

    The promise binds the decoder in `bvx-` and `bvxn` blocks; a `bvx2` block can give up to 27 MB whatever it says, so
    that bounding their number bounds the memory.
    """
    position = blocks = promised = 0
    try:
        while (magic := data[position : position + 4]) != b"bvx$":
            (raw,) = struct.unpack_from("<I", data, position + 4)
            if magic == b"bvx-":
                length = 8 + raw
            elif magic == b"bvxn":
                length = 12 + struct.unpack_from("<I", data, position + 8)[0]
            elif magic == b"bvx2":
                first, second, third = struct.unpack_from("<3Q", data, position + 8)
                header, literals, matches = third & 0xFFFFFFFF, first >> 20 & 0xFFFFF, second >> 40 & 0xFFFFF
                length = header + literals + matches
                if header < 32:
                    return 0, 0
            else:
                return 0, 0
            position, promised = position + length, promised + raw
            blocks += magic == b"bvx2"
    except struct.error:
        return 0, 0
    return blocks, promised


def _decompress(path: Path, data: bytes) -> bytes:
    try:
        import lzfse  # an optional dependency: few captures have such files
    except ImportError as error:
        raise BadInput(
            f"{path.name} is compressed with LZFSE and lzfse, which unpacks it, is not installed here",
            "install dpdy[record3d] on the server, or export EXR + RGB from Record3D",
        ) from error
    try:
        unpacked: bytes = lzfse.decompress(data)
    except (lzfse.error, MemoryError) as error:
        raise BadInput(f"{path.name} is damaged: it cannot be unpacked", _REMEDY) from error
    return unpacked
