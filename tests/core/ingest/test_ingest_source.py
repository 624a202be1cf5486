import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from ingest_samples import edit, make_images, make_posed, make_run, make_video, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import write_capture
from dpdy_core.ingest.inspect import inspect_input


def text_as_mp4(folder: Path) -> Path:
    (folder / "clip.mp4").write_text("This is a letter.\n" * 50)
    return folder / "clip.mp4"


def playlist_as_mp4(folder: Path) -> Path:
    (folder / "clip.mp4").write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    return folder / "clip.mp4"


def cut(folder: Path, movflags: str, name: str = "clip.mp4") -> Path:
    path = make_video(folder / name, movflags=movflags, keyint=6)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def sound_only(folder: Path) -> Path:
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
            frame.rate, frame.pts = 44100, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / "clip.mp4"


def avi(folder: Path) -> Path:
    return make_video(folder / "clip.avi", pix_fmt="yuv420p").rename(folder / "clip.mp4")


def empty_file(folder: Path) -> Path:
    (folder / "clip.mp4").touch()
    return folder / "clip.mp4"


def empty_folder(folder: Path) -> Path:
    (folder / "frames").mkdir()
    return folder / "frames"


def huge_image(folder: Path) -> Path:
    """A PNG whose header tells of 400 megapixels."""
    frames = make_images(folder / "frames", 3)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)), (b"IDAT", bytes(100))):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (frames / "frame1.png").write_bytes(data)
    return frames


def posed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    return edit(make_posed(folder / "capture"), change)


def zipped(folder: Path, name: str, data: bytes, mode: int = 0) -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(folder / "clip.zip", "w") as opened:
        opened.writestr(info, data)
    return folder / "clip.zip"


def nan_pose(document: dict[str, Any]) -> None:
    document["frames"][1]["transform_matrix"][0][3] = float("nan")


REFUSED: list[tuple[str, Callable[[Path], Path], str]] = [
    ("text file named mp4", text_as_mp4, "clip.mp4 is a text file"),
    ("playlist named mp4", playlist_as_mp4, "playlist"),
    ("avi named mp4", avi, "AVI"),
    ("mp4 cut before its index", lambda f: cut(f, ""), "moov missing"),
    ("mp4 cut in the middle", lambda f: cut(f, "faststart"), r"cut off.* only .* s \(\d+ frames\)"),
    ("mkv cut in the middle", lambda f: cut(f, "", "clip.mkv"), r"cut off.* only .* s \(\d+ frames\)"),
    ("one frame", lambda f: make_video(f / "clip.mp4", 1), "only 1 frame"),
    ("sound only", sound_only, "sound but no picture"),
    ("empty file", empty_file, "empty"),
    ("no such file", lambda f: f / "none.mp4", "does not exist"),
    ("single image", lambda f: make_images(f / "frames", 1) / "frame0.png", "single image"),
    ("empty folder", empty_folder, "empty"),
    ("folder of one image", lambda f: make_images(f / "frames", 1), "1 image;"),
    ("folder with a video", lambda f: make_video(f / "clip.mp4").parent, "give the video file itself"),
    ("20000x20000 image", huge_image, "400 megapixels, more than the limit"),
    ("missing image", lambda f: posed(f, lambda d: d["frames"][1].update(file_path="images/x.png")), "x.png.*missing"),
    ("NaN pose", lambda f: posed(f, nan_pose), "NaN"),
    ("path leaving the folder", lambda f: posed(f, lambda d: d["frames"][1].update(file_path="../x.png")), "leaves"),
    ("zip bomb", lambda f: zipped(f, "a.npy", bytes(65 * 2**20)), "zip bomb"),
    ("zip with a link", lambda f: zipped(f, "a.png", b"/etc/passwd", 0o120777), "link"),
    ("zip of nothing", lambda f: zipped(f, "notes/readme.txt", b"hello"), "nothing that can be used"),
]


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_unusable_captures_are_refused(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    given_ = tmp_path / "given"
    given_.mkdir()
    source = make(given_)
    run, config = make_run(tmp_path / "run", source)
    with pytest.raises(BadInput) as caught:
        write_capture(run.root, source, config.ingest.model_dump(), recording()[0])
    assert caught.value.exit_code == 3
    assert caught.value.remedy or "give" in caught.value.detail
    whole = f"{caught.value.detail} {caught.value.remedy}"
    assert str(tmp_path) not in whole or not source.exists()
    assert re.search(words, whole), whole
    assert [path.name for path in run.root.iterdir()] == ["config.json"]
    with pytest.raises(BadInput) as inspected:
        inspect_input(source)
    assert inspected.value.detail == caught.value.detail
