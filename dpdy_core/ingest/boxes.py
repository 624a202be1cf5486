"""The boxes of an mp4 or mov file, read before a demuxer believes them (ISO/IEC 14496-12, 4.2). Torch-free."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dpdy_core.errors import BadInput

MAX_BOXES = 100_000
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl")


@dataclass(frozen=True)
class Box:
    """One box; its payload lies in [start, end) of the file, the end possibly beyond the file's."""

    kind: bytes
    start: int
    end: int


def mp4_boxes(path: Path) -> list[Box]:
    """The top-level boxes, as far as they make sense."""
    with path.open("rb") as file:
        return list(_boxes(file, 0, path.stat().st_size))


def missing_bytes(path: Path) -> int:
    """How many bytes the boxes promise beyond the end of the file; 0 for a whole file."""
    boxes = mp4_boxes(path)
    return max(0, boxes[-1].end - path.stat().st_size) if boxes else 0


def check_boxes(path: Path, max_frames: int) -> None:
    """Raise BadInput for pictures that lie in another file, and for more frames than `max_frames` by declaration."""
    handler, seen = b"", 0
    with path.open("rb") as file:
        waiting = [box for box in mp4_boxes(path) if box.kind == b"moov"]
        while waiting and seen < MAX_BOXES:
            box, seen = waiting.pop(0), seen + 1
            if box.kind in _CONTAINERS:
                waiting[:0] = _boxes(file, box.start, box.end)
                continue
            file.seek(box.start)
            head = file.read(min(box.end - box.start, 4096))
            if box.kind == b"hdlr":
                handler = head[8:12]
            elif box.kind == b"rmra" or (box.kind == b"dref" and _points_elsewhere(head)):
                raise BadInput(
                    f"{path.name} keeps its pictures in another file, to which it only refers",
                    "export it as one self-contained file",
                )
            elif box.kind in (b"stsz", b"stz2") and handler == b"vide":
                declared = int.from_bytes(head[8:12], "big")
                if declared > max_frames:
                    raise BadInput(
                        f"{path.name} declares {declared} frames, more than {max_frames}", "cut it to what matters"
                    )


def _boxes(file: BinaryIO, position: int, end: int) -> Iterator[Box]:
    for _ in range(MAX_BOXES):
        if position + 8 > end:
            return
        file.seek(position)
        header = file.read(16)
        size, kind, offset = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, offset = int.from_bytes(header[8:16], "big"), 16
        elif size == 0:  # up to the end
            size = end - position
        if size < offset:
            return
        yield Box(kind, position + offset, position + size)
        position += size


def _points_elsewhere(dref: bytes) -> bool:
    """Whether an entry of a data reference box (8.7.2) has a location and lacks the flag `self-contained`."""
    position = 8
    while position + 12 <= len(dref):
        size, flags = int.from_bytes(dref[position : position + 4], "big"), dref[position + 11]
        if size > 13 and not flags & 1:
            return True
        position += max(size, 12)
    return False
