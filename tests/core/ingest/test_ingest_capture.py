import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_samples import (
    SHARED,
    edit,
    index_of,
    make_images,
    make_posed,
    make_run,
    make_video,
    picture,
    recording,
)
from PIL import Image

from dpdy_core.errors import BadInput, BadSettings, Cancelled
from dpdy_core.ingest import images
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import load_clip, read_image, read_transforms
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.selection import choose_evenly, frame_budget, holdout
from dpdy_core.rundir import RunDir, read_json


def ingest(tmp_path: Path, source: Path, **settings: Any) -> tuple[RunDir, dict[str, Any]]:
    run, config = make_run(tmp_path / "run", source, **settings)
    ingest_capture(run, config, recording()[0])
    return run, read_transforms(run.capture)


# ---- what is refused


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
    ("20000x20000 image", huge_image, "too large|20000x20000"),
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
        ingest_capture(run, config, recording()[0])
    assert caught.value.exit_code == 3
    assert caught.value.remedy or "give" in caught.value.detail
    whole = f"{caught.value.detail} {caught.value.remedy}"
    assert str(tmp_path) not in whole or not source.exists()
    assert re.search(words, whole), whole
    assert [path.name for path in run.root.iterdir()] == ["config.json"]
    with pytest.raises(BadInput) as inspected:
        inspect_input(source)
    assert inspected.value.detail == caught.value.detail


def test_damage_in_the_middle_leaves_the_former_capture(tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mp4", movflags="faststart", keyint=1)
    run, _ = ingest(tmp_path, source)
    before = sorted(p.name for p in run.capture.rglob("*"))
    data = bytearray(source.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    source.write_bytes(data)
    with pytest.raises(BadInput, match=r"only \d+ of its 24 frames"):
        ingest(tmp_path, source)
    assert sorted(p.name for p in run.capture.rglob("*")) == before
    assert sorted(p.name for p in run.root.iterdir()) == ["capture", "config.json"]


# ---- what is chosen


@given(
    gaps=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=300),
    budget=st.integers(2, 80),
)
def test_choice_is_sorted_unique_within_budget_and_keeps_the_ends(gaps: list[float], budget: int) -> None:
    times = np.cumsum([0.0, *gaps])
    chosen = choose_evenly(times, budget)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= budget
    assert chosen[0] == 0
    assert chosen[-1] == len(times) - 1
    step = times[-1] / (budget - 1)
    for moment in np.linspace(0, times[-1], budget):  # every moment has its nearest frame
        distance = np.abs(times - moment)
        if len(times) > budget:
            assert np.abs(times[chosen] - moment).min() == pytest.approx(distance.min(), abs=1e-9 + 1e-9 * step)


@given(count=st.integers(2, 400), budget=st.integers(2, 400))
def test_choice_of_a_steady_clip_is_even(count: int, budget: int) -> None:
    chosen = choose_evenly(range(count), budget)
    assert len(chosen) == min(count, budget)
    gaps = np.diff(chosen)
    assert gaps.max() - gaps.min() <= 1


@given(available=st.integers(2, 2000), max_frames=st.integers(2, 600), every=st.integers(2, 20) | st.just(0))
def test_budget_fills_the_training_frames(available: int, max_frames: int, every: int) -> None:
    budget = frame_budget(available, max_frames, every)
    tests = holdout(budget, every)
    assert budget <= available
    assert budget - len(tests) <= max_frames
    if budget < available:
        assert budget - len(tests) == max_frames
    assert not {0, budget - 1} & set(tests)
    assert (budget >= 24 and every > 0) or not tests


def test_holding_out_every_frame_is_a_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="holdout_every"):
        ingest(tmp_path, make_images(tmp_path / "c"), holdout_every=1)


# ---- what is written


def test_video_becomes_a_canonical_capture(tmp_path: Path) -> None:
    run, document = ingest(tmp_path, make_video(tmp_path / "clip.mp4", 30), holdout_every=8)
    assert document["source"] == "video"
    assert document["fps"] == pytest.approx(24)
    assert (document["w"], document["h"], document["camera_model"]) == (64, 48, "OPENCV")
    assert [document[key] for key in ("k1", "k2", "p1", "p2")] == [0, 0, 0, 0]
    names = {split: document[f"{split}_filenames"] for split in ("train", "val", "test")}
    assert names["val"] == []
    assert len(names["train"]) == 26
    assert len(names["test"]) == 4
    assert {f["file_path"] for f in document["frames"]} == {*names["train"], *names["test"]}
    for frame in document["frames"]:
        assert set(frame) == {"file_path", "time"}
        rgb = read_image(run.capture / frame["file_path"], (64, 48))
        index = index_of(rgb)
        assert frame["time"] == pytest.approx(index / 29, abs=1e-4)
        assert np.abs(rgb.astype(int) - picture(index)).mean() < 5
    report = read_json(run.capture_report_file)
    assert report["kind"] == "video"
    assert report["chosen"] == {"train": 26, "val": 0, "test": 4, "width": 64, "height": 48, "fps": document["fps"]}


def test_long_video_is_thinned_evenly_in_time(tmp_path: Path) -> None:
    ticks = [*range(0, 200, 10), *range(200, 2000, 100)]  # the first 20 frames ten times as dense
    run, document = ingest(
        tmp_path, make_video(tmp_path / "clip.mp4", len(ticks), ticks=ticks), max_frames=8, holdout_every=0
    )
    times = [frame["time"] for frame in document["frames"]]
    assert len(times) == 8
    assert (times[0], times[-1]) == (0, 1)
    assert np.abs(np.array(times) - np.linspace(0, 1, 8)).max() <= 50 / 1900 + 1e-6
    assert len(list((run.capture / "images").iterdir())) == 8
    assert document["fps"] == pytest.approx(7 / (1900 / 240))


def test_max_size_scales_the_longer_side(tmp_path: Path) -> None:
    run, document = ingest(tmp_path, make_video(tmp_path / "clip.mp4", 4), max_size=33)
    assert (document["w"], document["h"]) == (33, 25)
    image = cv2.imread(str(run.capture / document["frames"][0]["file_path"]))
    assert image.shape == (25, 33, 3)


def test_folder_of_frames(tmp_path: Path) -> None:
    source = make_images(tmp_path / "frames", 12)
    (source / "notes.txt").write_text("not a frame")
    run, document = ingest(tmp_path, source)
    assert document["source"] == "images"
    assert [frame["file_path"] for frame in document["frames"]] == [f"images/frame{i}.png" for i in range(12)]
    assert [frame["time"] for frame in document["frames"]] == pytest.approx(np.linspace(0, 1, 12).tolist())
    for index in range(12):  # untouched files keep their bytes
        assert (run.capture / f"images/frame{index}.png").read_bytes() == (source / f"frame{index}.png").read_bytes()


def test_thinned_frames_still_play_in_real_time(tmp_path: Path) -> None:
    _, document = ingest(tmp_path, make_posed(tmp_path / "c", 31, fps=30), max_frames=11, holdout_every=0)
    assert document["fps"] == pytest.approx(10)


def test_turned_grey_transparent_and_deep_images_become_rgb(tmp_path: Path) -> None:
    source = tmp_path / "frames"
    source.mkdir()
    upright = picture(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a clockwise quarter turn
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(source / "0.png", exif=exif)
    Image.fromarray(upright[:, :, 0]).save(source / "1.png")
    Image.fromarray(np.dstack([upright, np.zeros((48, 64), np.uint8)])).save(source / "2.png")
    Image.fromarray(upright[:, :, 0].astype(np.uint16) * 257).save(source / "3.png")
    run, _ = ingest(tmp_path, source)
    stored = [cv2.imread(str(run.capture / f"images/{i}.png"), cv2.IMREAD_UNCHANGED) for i in range(4)]
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for image in stored)
    assert np.array_equal(stored[0][:, :, ::-1], upright)
    assert np.array_equal(stored[1][:, :, 0], upright[:, :, 0])
    assert (stored[2] == 255).all()
    assert np.array_equal(stored[3][:, :, 1], upright[:, :, 0])


def test_place_of_recording_is_not_carried_over(tmp_path: Path) -> None:
    source = make_images(tmp_path / "frames", 2, suffix=".jpg")
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    Image.fromarray(picture(0)).save(source / "frame0.jpg", exif=exif, quality=95, subsampling=0)
    run, _ = ingest(tmp_path, source)
    with Image.open(run.capture / "images/frame0.jpg") as stored:
        assert 0x8825 not in stored.getexif()
        assert np.abs(np.asarray(stored).astype(int) - picture(0)).mean() < 4


def test_lossless_stays_lossless_and_large_becomes_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_images(tmp_path / "frames", 2, 200, 120)
    run, document = ingest(tmp_path, source, max_size=160)
    stored = cv2.imread(str(run.capture / document["frames"][0]["file_path"]))[:, :, ::-1]
    assert document["frames"][0]["file_path"].endswith(".png")
    assert np.array_equal(stored, cv2.resize(picture(0, 200, 120), (160, 96), interpolation=cv2.INTER_AREA))
    monkeypatch.setattr(images, "_PNG_PIXELS", 160 * 96 - 1)
    run, document = ingest(tmp_path, source, max_size=160)
    assert document["frames"][0]["file_path"].endswith(".jpg")
    with Image.open(run.capture / document["frames"][0]["file_path"]) as image:
        assert image.layer[0][1:3] == (1, 1)  # full chroma
        assert np.abs(np.asarray(image).astype(int) - stored).mean() < 1


def test_names_that_collide_are_told_apart(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for index, frame in enumerate(document["frames"]):
            frame["file_path"] = f"cam{index}/Frame 0.png"

    folder = make_posed(tmp_path / "c", 3)
    edit(folder, change)
    for index in range(3):
        (folder / f"cam{index}").mkdir()
        (folder / f"images/frame{index}.png").rename(folder / f"cam{index}" / "Frame 0.png")
    _, document = ingest(tmp_path, folder)
    assert len({frame["file_path"].casefold() for frame in document["frames"]}) == 3
    assert document["frames"][1]["file_path"] == "images/cam1_Frame_0.png"


def test_running_again_replaces_the_folder(tmp_path: Path) -> None:
    source = make_images(tmp_path / "frames", 4)
    run, first = ingest(tmp_path, source)
    (run.capture / "depth").mkdir()
    (run.root / ".unpacked.old").mkdir()  # a killed attempt's
    _, second = ingest(tmp_path, source)
    assert first == second
    assert sorted(p.name for p in run.capture.iterdir()) == ["images", "report.json", "transforms.json"]
    assert sorted(p.name for p in run.root.iterdir()) == ["capture", "config.json"]


def test_a_stop_leaves_nothing_half_written(tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", make_video(tmp_path / "clip.mp4"))
    reporter, events = recording()
    reporter.request_stop()
    with pytest.raises(Cancelled):
        ingest_capture(run, config, reporter)
    assert [path.name for path in run.root.iterdir()] == ["config.json"]
    assert all(event["event"] != "step" for event in events)


def test_warnings_reach_the_reporter(tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", make_images(tmp_path / "frames", 4))
    reporter, events = recording()
    ingest_capture(run, config, reporter)
    told = [event["message"] for event in events if event["event"] == "warning"]
    assert any("only 4 training frames" in message for message in told)
    assert told == read_json(run.capture_report_file)["warnings"]
    assert [event["step"] for event in events if event["event"] == "step"][-1] == 4


@pytest.mark.skipif(not SHARED.exists(), reason="the shared clips are not on this machine")
@pytest.mark.parametrize(
    ("name", "settings", "train", "test"),
    [
        ("desk", {}, 30, 20),
        ("hand_on_shelf_posed", {"max_frames": 16}, 16, 11),
        ("synthetic_person_gt", {"max_size": 120}, 40, 0),
        ("walking_dog/dog-example.mp4", {"max_frames": 32, "max_size": 320}, 32, 4),
    ],
)
def test_shared_clips(tmp_path: Path, name: str, settings: dict[str, int], train: int, test: int) -> None:
    run, document = ingest(tmp_path, SHARED / name, **settings)
    assert (len(document["train_filenames"]), len(document["test_filenames"])) == (train, test)
    for frame in document["frames"]:
        for key in ("file_path", "user_depth_file_path", "motion_mask_path", "covisible_path"):
            assert key not in frame or (run.capture / frame[key]).is_file()
    if name == "desk":
        given_ = json.loads((SHARED / name / "transforms.json").read_text())
        clip = load_clip(run.capture, "train", 4096)
        assert clip is not None
        assert clip.motion is not None
        assert clip.names == given_["train_filenames"]
        first = next(f for f in given_["frames"] if f["file_path"] == clip.names[0])
        assert np.allclose(clip.cameras.camera_to_world[0], np.array(first["transform_matrix"])[:3], atol=1e-6)
        depth = cv2.imread(str(run.capture / "user_depth/train_000.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(depth, cv2.imread(str(SHARED / name / "depth/train_000.png"), cv2.IMREAD_UNCHANGED))
