"""Broken and hostile inputs, each made in an empty folder from nothing but bytes and the project's own samples."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.core.ingest.ingest_samples import edit, make_images, make_posed, picture

Make = Callable[[Path], Path]
SECRET = "secret"  # beside every input lie secret.png, secret.mp4, secret.json: what may not be read


def raw(name: str, data: bytes) -> Make:
    """A file of these bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def text(name: str, content: str) -> Make:
    return raw(name, content.encode())


def frames(change: Callable[[Path], object], count: int = 4) -> Make:
    """A folder of frames, then changed."""

    def make(folder: Path) -> Path:
        root = make_images(folder / "frames", count)
        change(root)
        return root

    return make


def replaced(data: bytes | Callable[[], bytes], name: str = "frame1.png") -> Make:
    """A folder of frames of which one is these bytes."""
    return frames(lambda root: (root / name).write_bytes(data() if callable(data) else data))


def encoded(format: str, *pictures: Image.Image) -> bytes:
    out = io.BytesIO()
    pictures[0].save(out, format, **({"save_all": True, "append_images": pictures[1:]} if pictures[1:] else {}))
    return out.getvalue()


def animation(format: str) -> bytes:
    return encoded(format, *(Image.fromarray(picture(i)) for i in range(3)))


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends soon after having told its size."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", bytes(100))):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def black_and_white(side: int) -> bytes:
    """A whole PNG of one bit a pixel: 50 MB of pixels in 50 kB."""
    return encoded("PNG", Image.new("1", (side, side)))


def endless_tiff() -> bytes:
    """A TIFF whose first directory says that it is followed by itself and that its strips are everywhere."""
    entries = [(256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 2**32 - 9)]
    entries += [(278, 4, 1, 48), (279, 4, 1, 2**32 - 1)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 8)


def linked(target: str, name: str = "frame1.png") -> Make:
    """A folder of frames of which one is a link."""

    def change(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)

    return frames(change)


def pipe(root: Path) -> None:
    (root / "frame1.png").unlink()
    os.mkfifo(root / "frame1.png")


def directory(root: Path) -> None:
    (root / "frame1.png").unlink()
    (root / "frame1.png").mkdir()


def loop(root: Path) -> None:
    for a, b in (("a", "b"), ("b", "a")):
        (root / f"{a}.png").symlink_to(f"{b}.png")


def posed(change: Callable[[dict[str, Any]], object], then: Callable[[Path], object] | None = None) -> Make:
    """A capture with poses whose document, and then files, are changed."""

    def make(folder: Path) -> Path:
        root = edit(make_posed(folder / "capture"), change)
        if then is not None:
            then(root)
        return root

    return make


def document(content: str | Callable[[str], str]) -> Make:
    """A capture with poses whose transforms.json is this text, or made of its text."""

    def change(root: Path) -> None:
        path = root / "transforms.json"
        path.write_text(content(path.read_text()) if callable(content) else content)

    return posed(lambda _: None, change)


def frame(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Change the second frame's fields."""
    return lambda document: document["frames"][1].update(fields)


def pose(row: int, values: list[Any]) -> Callable[[dict[str, Any]], None]:
    """Replace a row of the second frame's matrix."""

    def change(document: dict[str, Any]) -> None:
        document["frames"][1]["transform_matrix"][row] = values

    return change


def with_maps(key: str, name: str, data: Callable[[int], bytes]) -> Make:
    """A capture with poses and one map a frame."""

    def change(root: Path) -> None:
        def name_them(document: dict[str, Any]) -> None:
            for index, entry in enumerate(document["frames"]):
                entry[key] = name.format(index)
                (root / entry[key]).write_bytes(data(index))

        edit(root, name_them)

    return posed(lambda _: None, change)


def colour(index: int) -> bytes:
    return encoded("PNG", Image.fromarray(picture(index)))


def relink(root: Path, target: str) -> None:
    """The document becomes a link."""
    (root / "transforms.json").unlink()
    (root / "transforms.json").symlink_to(target)


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=values.dtype == object)
    return out.getvalue()


def npy_header(header: str) -> bytes:
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(line)) + line + bytes(64)


class Bait:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def depth(values: np.ndarray) -> bytes:
    return encoded("PNG", Image.fromarray(values))


def archive(*members: tuple[str, bytes], mode: int = 0, flags: int = 0) -> Make:
    """A zip of these members, with these Unix modes and, in all places, these flags."""

    def make(folder: Path) -> Path:
        path = folder / "clip.zip"
        with zipfile.ZipFile(path, "w") as opened:
            for name, data in members:
                info = zipfile.ZipInfo(name)
                info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
                opened.writestr(info, data)
        if flags:
            written = bytearray(path.read_bytes())
            written[6] |= flags
            written[written.index(b"PK\x01\x02") + 8] |= flags
            path.write_bytes(written)
        return path

    return make


def zipped_bytes(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return out.getvalue()


def nested(layers: int) -> bytes:
    data = zipped_bytes(("bomb.bin", bytes(10**6)))
    for _ in range(layers):
        data = zipped_bytes(*((f"{i}.zip", data) for i in range(10)))
    return data


def tarred(folder: Path) -> Path:
    frames = make_images(folder / "frames")
    with tarfile.open(folder / "clip.zip", "w") as opened:
        opened.add(frames, "frames")
    return folder / "clip.zip"


def without_rights(name: str) -> Make:
    def change(root: Path) -> None:
        (root / name).chmod(0)

    return frames(change)


IDENTITY = np.eye(4).tolist()
NOT_A_NUMBER = [float("nan")] * 4
PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n"
MANIFEST = '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>secret.mp4</BaseURL></MPD>\n'
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"><image href="secret.png"/></svg>'
CONSTANT = np.zeros((48, 64), np.uint16)
PICKLED = pickle.dumps(Bait())
OBJECTS = np.array([Bait()], dtype=object)
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"
NEGATIVE = "{'descr': '<f4', 'fortran_order': False, 'shape': (-48, 64), }"
