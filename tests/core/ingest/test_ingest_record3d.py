import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lzfse
import numpy as np
import OpenEXR
import pytest
from ingest_samples import index_of, make_run, picture, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest import lzfse_file
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import load_clip, load_given_depth
from dpdy_core.ingest.record3d import read_record3d
from dpdy_core.ingest.source import open_source

FRAMES, SIZE, DEPTH = 4, (48, 64), (24, 32)
TIMES = (0.0, 0.1, 0.2, 0.4)


def quaternion(index: int) -> list[float]:
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    return [*(axis * np.sin(0.1 * index)).tolist(), float(np.cos(0.1 * index))]


def pose(index: int) -> np.ndarray:
    """(4, 4), by Rodrigues' formula instead of the quaternion's."""
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(0.2 * index * np.array([1.0, 2.0, 3.0]) / np.sqrt(14))[0]
    matrix[:3, 3] = [0.1 * index, -0.2, 1.5]
    return matrix


def depth(index: int) -> np.ndarray:
    """(H, W) float32 metres with a hole of NaN."""
    values = np.linspace(0.5, 3 + index, DEPTH[0] * DEPTH[1], dtype=np.float32).reshape(DEPTH[::-1])
    values[2, 3] = np.nan
    return values


def trust() -> np.ndarray:
    values = np.full(DEPTH[::-1], 2, np.uint8)
    values[:, :5], values[:, 5:9] = 0, 1
    return values


def metadata(**more: Any) -> dict[str, Any]:
    return {
        "w": SIZE[0] // 2,  # intrinsics of half the size
        "h": SIZE[1] // 2,
        "K": [30.0, 0, 0, 0, 31.0, 0, 12.5, 15.5, 1],
        "fps": 10,
        "poses": [[*quaternion(i), 0.1 * i, -0.2, 1.5] for i in range(FRAMES)],
        **more,
    }


def make_recording(folder: Path, compressed: bool = True) -> Path:
    """An unpacked .r3d recording."""
    (folder / "rgbd").mkdir(parents=True)
    coefficients = [[30.0 + i, 31.0, 12.5, 15.5] for i in range(FRAMES)]
    document = metadata(dw=DEPTH[0], dh=DEPTH[1], perFrameIntrinsicCoeffs=coefficients, frameTimestamps=list(TIMES))
    (folder / "metadata").write_text(json.dumps(document))
    pack = lzfse.compress if compressed else bytes
    for i in range(FRAMES):
        cv2.imwrite(str(folder / f"rgbd/{i}.jpg"), picture(i, *SIZE)[:, :, ::-1])
        (folder / f"rgbd/{i}.depth").write_bytes(pack(depth(i).tobytes()))
        (folder / f"rgbd/{i}.conf").write_bytes(pack(trust().tobytes()))
    return folder


def make_exr(folder: Path, channels: str = "R") -> Path:
    """An EXR + RGB export."""
    for name in ("rgb", "depth"):
        (folder / "EXR_RGBD" / name).mkdir(parents=True)
    (folder / "EXR_RGBD/metadata.json").write_text(json.dumps(metadata()))
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for i in range(FRAMES):
        cv2.imwrite(str(folder / f"EXR_RGBD/rgb/{i}.png"), picture(i, *SIZE)[:, :, ::-1])
        pixels = depth(i) if len(channels) == 1 else np.dstack([depth(i)] * 3)
        OpenEXR.File(header, {channels: pixels}).write(str(folder / f"EXR_RGBD/depth/{i}.exr"))
    return folder


def edit(folder: Path, **change: Any) -> None:
    path = folder / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize("compressed", [True, False])
def test_recording_round_trip(tmp_path: Path, compressed: bool) -> None:
    capture = read_record3d(make_recording(tmp_path / "clip", compressed))
    assert (capture.kind, capture.width, capture.height, capture.fps) == ("record3d", *SIZE, 10)
    for i, frame in enumerate(capture.frames):
        assert frame.pose is not None
        assert np.abs(frame.pose - pose(i)).max() < 1e-6
        assert frame.lens is not None
        assert frame.lens.pinhole(1, 1) == pytest.approx({"fl_x": 60 + 2 * i, "fl_y": 62, "cx": 25, "cy": 31})
        assert frame.time == pytest.approx(TIMES[i] / TIMES[-1])
        assert frame.depth is not None
        expected = np.where(trust() > 0, np.nan_to_num(depth(i)), 0)
        assert np.abs(frame.depth.read() - expected).max() * capture.depth_unit < 1e-6


@pytest.mark.parametrize("channels", ["R", "Z", "RGB"])
def test_exr_round_trip(tmp_path: Path, channels: str) -> None:
    capture = read_record3d(make_exr(tmp_path / "clip", channels))
    for i, frame in enumerate(capture.frames):
        assert frame.pose is not None
        assert np.abs(frame.pose - pose(i)).max() < 1e-6
        assert frame.lens is not None
        assert frame.lens.fl_x == pytest.approx(60)
        assert frame.time == pytest.approx(i / (FRAMES - 1))
        assert frame.depth is not None
        assert np.abs(frame.depth.read() - np.nan_to_num(depth(i))).max() < 1e-6


@pytest.mark.parametrize("make", [make_recording, make_exr])
def test_zip_becomes_a_canonical_capture(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "clip")
    archive = Path(shutil.make_archive(str(tmp_path / "clip"), "zip", folder)).rename(tmp_path / "clip.r3d")
    run, config = make_run(tmp_path / "run", archive, holdout_every=0)
    ingest_capture(run, config, recording()[0])
    clip = load_clip(run.capture, "train", 4096)
    assert clip is not None
    assert [index_of(image.numpy()) for image in clip.images] == list(range(FRAMES))
    given_ = load_given_depth(run.capture, clip)
    assert given_ is not None
    last = np.nan_to_num(depth(FRAMES - 1))
    assert given_[-1, 41, 21].item() == pytest.approx(last[20, 10], rel=1e-4)
    assert given_[-1, 5, 7].item() == 0  # the hole, at twice the size
    assert (given_[0, :, :10] > 0).any() == (make is make_exr)  # no confidence there


def deflated(data: bytes) -> bytes:
    return bytes(lzfse.compress(data))


def exr_of_size(path: Path, width: int, height: int) -> None:
    data = path.read_bytes()
    at = data.index(b"dataWindow\0box2i\0") + 21
    path.write_bytes(data[:at] + np.array([0, 0, width - 1, height - 1], "<i4").tobytes() + data[at + 16 :])


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("missing image", lambda f: (f / "rgbd/2.jpg").unlink(), "image 2 of rgbd is missing"),
    ("more images than poses", lambda f: edit(f, poses=metadata()["poses"][:3]), "3 poses but 4 images"),
    ("NaN pose", lambda f: edit(f, poses=[[float("nan")] * 7] * FRAMES), "nan, not a finite number"),
    ("no rotation", lambda f: edit(f, poses=[[1, 1, 0, 0, 0, 0, 0]] * FRAMES), "length 1.41"),
    ("poses of text", lambda f: edit(f, poses=["a"] * FRAMES), "list of 7 numbers"),
    ("no poses", lambda f: edit(f, poses=None), "no list of 2"),
    ("time runs back", lambda f: edit(f, frameTimestamps=[0, 2, 1, 3]), "do not rise"),
    ("few time stamps", lambda f: edit(f, frameTimestamps=[0, 2]), "list of 4 numbers"),
    ("shape of other images", lambda f: edit(f, w=64, h=48), "another shape"),
    ("few intrinsics", lambda f: edit(f, perFrameIntrinsicCoeffs=[[1, 1, 1, 1]]), "list of 4 entries"),
    ("depth size lies", lambda f: edit(f, dw=240, dh=320), "does not hold the 307200 bytes"),
    ("huge depth", lambda f: edit(f, dw=10**6, dh=10**6), "too large"),
    ("depth size is no number", lambda f: edit(f, dw=None), "not a finite number"),
    ("depth is a bomb", lambda f: (f / "rgbd/1.depth").write_bytes(deflated(bytes(10**6))), "1.depth does not hold"),
    ("depth is junk", lambda f: (f / "rgbd/1.depth").write_bytes(b"hello"), "1.depth does not hold"),
    ("depth is cut", lambda f: (f / "rgbd/1.depth").write_bytes(deflated(depth(1).tobytes())[:-9]), "does not hold"),
    ("depth is large", lambda f: (f / "rgbd/1.depth").write_bytes(bytes(10**5)), "larger than the map"),
    ("metadata is text", lambda f: (f / "metadata").write_text("hello"), "not valid JSON"),
    ("image 0 twice the size", lambda f: cv2.imwrite(str(f / "rgbd/0.jpg"), picture(0, 96, 128)), "48x64"),
]


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_unusable_recordings_are_refused(tmp_path: Path, spoil: Callable[[Path], Any], words: str) -> None:
    folder = make_recording(tmp_path / "clip")
    spoil(folder)
    with pytest.raises(BadInput, match=words) as caught, open_source(folder):
        pass
    assert caught.value.remedy


def test_damaged_blocks_are_refused_when_they_are_read(tmp_path: Path) -> None:
    folder = make_recording(tmp_path / "clip")
    noise = np.random.default_rng(0).normal(2, 0.001, DEPTH[::-1]).astype(np.float32)
    packed = bytearray(deflated(np.repeat(np.repeat(noise, 4, 0), 4, 1).tobytes()))
    edit(folder, dw=4 * DEPTH[0], dh=4 * DEPTH[1])
    for i in range(FRAMES):
        (folder / f"rgbd/{i}.conf").unlink()
        (folder / f"rgbd/{i}.depth").write_bytes(bytes(packed))
    assert packed[:4] == b"bvx2"
    for at in range(100, 400):
        packed[at] ^= 0x5A
    (folder / "rgbd/3.depth").write_bytes(bytes(packed))
    capture = read_record3d(folder)
    assert capture.frames[0].depth is not None
    assert np.array_equal(capture.frames[0].depth.read()[::4, ::4], noise)
    with pytest.raises(BadInput, match=r"3\.depth"):
        capture.frames[3].depth.read()  # type: ignore[union-attr]


def test_many_small_blocks_are_a_bomb(tmp_path: Path) -> None:
    block = b"bvx2" + (0).to_bytes(4, "little") + np.array([0, 0, 32], "<u8").tobytes()
    (tmp_path / "1.depth").write_bytes(block * 60 + b"bvx-" + (4096).to_bytes(4, "little") + bytes(4096) + b"bvx$")
    with pytest.raises(BadInput, match="does not hold"):
        lzfse_file.check(tmp_path / "1.depth", 4096)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"hello"), "not an EXR file"),
        (lambda path: path.write_bytes(path.read_bytes()[:80]), "not an EXR file"),
        (lambda path: exr_of_size(path, 100_000, 100_000), "no depth map"),
        (lambda path: exr_of_size(path, 240, 24), "another shape"),
    ],
)
def test_unusable_exr_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], words: str) -> None:
    folder = make_exr(tmp_path / "clip")
    spoil(folder / "EXR_RGBD/depth/1.exr")
    with pytest.raises(BadInput, match=words):
        read_record3d(folder)


def test_damaged_exr_pixels_are_refused_when_they_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_exr(tmp_path / "clip")
    exr_of_size(folder / "EXR_RGBD/depth/1.exr", 240, 320)
    frame = read_record3d(folder).frames[1]
    assert frame.depth is not None
    with pytest.raises(BadInput, match=r"1\.exr"):
        frame.depth.read()
    assert not capsys.readouterr().out  # stdout belongs to --json


def test_links_out_of_the_recording_are_refused(tmp_path: Path) -> None:
    folder = make_recording(tmp_path / "clip")
    (folder / "rgbd/1.depth").rename(tmp_path / "outside.depth")
    (folder / "rgbd/1.depth").symlink_to(tmp_path / "outside.depth")
    with pytest.raises(BadInput, match="link that leaves"):
        read_record3d(folder)


def test_escaping_names_in_the_archive_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clip.r3d", "w") as archive:
        archive.writestr("metadata", json.dumps(metadata()))
        archive.writestr("rgbd/../../0.jpg", b"")
    with pytest.raises(BadInput, match="leaves the folder"), open_source(tmp_path / "clip.r3d"):
        pass
