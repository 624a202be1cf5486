"""Broken and hostile videos: sound ones whose bytes are changed."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.core.ingest.ingest_samples import make_video
from tests.e2e.hostile import Make


def video(change: Callable[[bytearray], object] | None = None, name: str = "clip.mp4", **options: Any) -> Make:
    """A sound video whose bytes are then changed."""

    def make(folder: Path) -> Path:
        path = make_video(folder / name, **options)
        if change is not None:
            data = bytearray(path.read_bytes())
            change(data)
            path.write_bytes(data)
        return path

    return make


def cut(data: bytearray) -> None:
    del data[len(data) * 2 // 3 :]


def big_endian(tag: bytes, offset: int, value: int, size: int = 4) -> Callable[[bytearray], None]:
    """Write `value` at `offset` after the type of the first box `tag`."""

    def change(data: bytearray) -> None:
        place = data.index(tag) + 4 + offset
        data[place : place + size] = value.to_bytes(size, "big")

    return change


def jpegs_of(width: int, height: int) -> Callable[[bytearray], None]:
    """Let the baseline JPEGs of a Motion JPEG tell another size."""

    def change(data: bytearray) -> None:
        place = data.find(b"\xff\xc0\0\x11\x08")
        while place >= 0:
            data[place + 5 : place + 9] = struct.pack(">HH", height, width)
            place = data.find(b"\xff\xc0\0\x11\x08", place + 1)

    return change


def no_time(data: bytearray) -> None:
    """All sample durations 0, no composition offsets."""
    place = data.index(b"stts") + 8
    for entry in range(int.from_bytes(data[place : place + 4], "big")):
        data[place + 8 + 8 * entry : place + 12 + 8 * entry] = bytes(4)
    if b"ctts" in data:
        place = data.index(b"ctts")
        data[place : place + 4] = b"free"


def garbage(data: bytearray) -> None:
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 4000] = bytes(4000)


def refer_outside(data: bytearray) -> None:
    """The video track's pictures lie in secret.mp4, says its data reference."""
    place = data.index(b"\0\0\0\x0curl \0\0\0\x01")
    entry = b"url \0\0\0\0secret.mp4\0"
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.rindex(kind, 0, place) - 4
        grown = int.from_bytes(data[start : start + 4], "big") + len(entry) + 4 - 12
        data[start : start + 4] = grown.to_bytes(4, "big")
    data[place : place + 12] = (len(entry) + 4).to_bytes(4, "big") + entry


def sound_only(folder: Path) -> Path:
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
            frame.rate, frame.pts = 44100, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / "clip.mp4"
