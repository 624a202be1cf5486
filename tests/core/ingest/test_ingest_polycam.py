import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ingest_samples import index_of, make_run, picture, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import load_clip, load_given_depth
from dpdy_core.ingest.polycam import read_polycam
from dpdy_core.ingest.source import open_source

STAMPS = (9_999_000_000, 10_000_000_000, 10_001_500_000, 10_003_000_000)  # microseconds; one digit less at first
SIZE, DEPTH = (64, 48), (32, 24)


def pose(index: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(np.array([0.1, 0.2, -0.1]) * index)[0]
    matrix[:3, 3] = [0.1 * index, 1.2, -0.3]
    return matrix


def depth(index: int) -> np.ndarray:
    return (np.arange(DEPTH[0] * DEPTH[1]).reshape(DEPTH[::-1]) + 500 * index + 1).astype(np.uint16)


def trust() -> np.ndarray:
    values = np.full(DEPTH[::-1], 255, np.uint8)
    values[:3], values[3:6] = 0, 54
    return values


def camera(index: int) -> dict[str, Any]:
    matrix = pose(index)
    entries = {f"t_{i}{j}": float(matrix[i, j]) for i in range(3) for j in range(4)}
    lens = {"fx": 50.0 + index, "fy": 51.0, "cx": 31.5, "cy": 24.5, "width": SIZE[0], "height": SIZE[1]}
    return {**entries, **lens, "blur_score": 90.0, "timestamp": STAMPS[index]}


def make_export(folder: Path, corrected: bool = False) -> Path:
    """A raw export; with `corrected`, the plain cameras and images are nonsense."""
    keyframes = folder / "keyframes"
    for name in ("images", "cameras", "depth", "confidence"):
        (keyframes / name).mkdir(parents=True)
    (folder / "mesh_info.json").write_text("{}")
    cv2.imwrite(str(folder / "thumbnail.jpg"), picture(0))
    for index, stamp in enumerate(STAMPS):
        shown, written = (0, camera(0)) if corrected else (index, camera(index))
        cv2.imwrite(str(keyframes / f"images/{stamp}.jpg"), picture(shown, *SIZE)[:, :, ::-1])
        (keyframes / f"cameras/{stamp}.json").write_text(json.dumps(written))
        cv2.imwrite(str(keyframes / f"depth/{stamp}.png"), depth(index))
        cv2.imwrite(str(keyframes / f"confidence/{stamp}.png"), trust())
        if corrected:
            for name in ("corrected_images", "corrected_cameras"):
                (keyframes / name).mkdir(exist_ok=True)
            cv2.imwrite(str(keyframes / f"corrected_images/{stamp}.jpg"), picture(index, *SIZE)[:, :, ::-1])
            (keyframes / f"corrected_cameras/{stamp}.json").write_text(json.dumps(camera(index)))
    return folder


@pytest.mark.parametrize("corrected", [False, True])
def test_round_trip(tmp_path: Path, corrected: bool) -> None:
    capture = read_polycam(make_export(tmp_path / "scan", corrected))
    assert (capture.kind, capture.width, capture.height) == ("polycam", *SIZE)
    assert capture.fps == pytest.approx(3 / 4)
    assert [frame.time for frame in capture.frames] == pytest.approx([0, 0.25, 0.625, 1], abs=1e-6)
    for i, frame in enumerate(capture.frames):
        assert index_of(capture.picture(frame)) == i
        assert frame.pose is not None
        assert np.abs(frame.pose - pose(i)).max() < 1e-6
        assert frame.lens is not None
        assert frame.lens.pinhole(1, 1) == pytest.approx({"fl_x": 50 + i, "fl_y": 51, "cx": 31.5, "cy": 24.5})
        assert frame.depth is not None
        assert np.array_equal(frame.depth.read(), np.where(trust() > 0, depth(i), 0))
    assert capture.depth_unit == 0.001


def test_canonical_capture(tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", make_export(tmp_path / "scan"), holdout_every=0)
    ingest_capture(run, config, recording()[0])
    clip = load_clip(run.capture, "train", 4096)
    assert clip is not None
    assert len(clip) == len(STAMPS)
    metres = load_given_depth(run.capture, clip)
    assert metres is not None
    assert metres[2].numpy()[1::2, 1::2] == pytest.approx(np.where(trust() > 0, depth(2), 0) * 0.001, abs=1e-6)


def test_images_without_a_camera_are_left_out_and_told(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "scan")
    (folder / f"keyframes/cameras/{STAMPS[1]}.json").unlink()
    capture = read_polycam(folder)
    assert [frame.name for frame in capture.frames] == [str(STAMPS[i]) for i in (0, 2, 3)]
    assert "1 of 4 images have no camera" in capture.warnings[0]


def test_the_keyframes_folder_itself_and_other_names(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "scan") / "keyframes"
    for path in [*folder.glob("*/*")]:
        path.rename(path.with_name(f"k{path.name}"))
    with open_source(folder) as capture:
        assert [frame.time for frame in capture.frames] == pytest.approx([0, 1 / 3, 2 / 3, 1])  # type: ignore[union-attr]
        assert "order is taken" in capture.warnings[0]  # type: ignore[union-attr]


def spoil(**values: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / f"keyframes/cameras/{STAMPS[1]}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def write(place: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "keyframes" / place).write_bytes(data)


def link(folder: Path) -> None:
    path = folder / f"keyframes/images/{STAMPS[2]}.jpg"
    path.rename(folder.parent / "outside.jpg")
    path.symlink_to(folder.parent / "outside.jpg")


STAMP = STAMPS[1]
NPY = b"\x93NUMPY\x01\x00"
REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("missing image", lambda f: (f / f"keyframes/images/{STAMP}.jpg").unlink(), f"{STAMP}.jpg.*missing"),
    ("NaN in the pose", spoil(t_13=float("nan")), "t_13 of cameras/.*nan"),
    ("no rotation", spoil(t_00=3.0), "not a rotation"),
    ("entry missing", spoil(t_22=None), "t_22"),
    ("camera far away", spoil(t_03=1e12), "units from the origin"),
    ("no focal length", spoil(fx=0, fy=0), "no focal length"),
    ("width lies", spoil(width=1024), "width 1024 but the images have 64x48"),
    ("centre far outside", spoil(cx=1e9), "principal point"),
    ("camera is a list", write(f"cameras/{STAMP}.json", b"[]"), "not a JSON object"),
    ("depth is no picture", write(f"depth/{STAMP}.png", NPY), "not an image"),
    ("confidence is no picture", write(f"confidence/{STAMP}.png", NPY), "not an image"),
    ("depth of another shape", lambda f: cv2.imwrite(str(f / f"keyframes/depth/{STAMP}.png"), depth(0)[:18]), "shape"),
    ("link out of the export", link, "link that leaves"),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_unusable_exports_are_refused(tmp_path: Path, change: Callable[[Path], Any], words: str) -> None:
    folder = make_export(tmp_path / "scan")
    change(folder)
    with pytest.raises(BadInput, match=words) as caught, open_source(folder):
        pass
    assert caught.value.remedy
