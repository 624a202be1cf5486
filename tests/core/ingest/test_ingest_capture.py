import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
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
from dpdy_core.ingest.capture import ingest_capture, write_capture
from dpdy_core.ingest.clip import load_clip, read_image, read_transforms
from dpdy_core.rundir import RunDir, read_json


def ingest(tmp_path: Path, source: Path, **settings: Any) -> tuple[RunDir, dict[str, Any]]:
    run, config = make_run(tmp_path / "run", source, **settings)
    write_capture(run.root, source, config.ingest.model_dump(), recording()[0])
    return run, read_transforms(run.capture)


def test_holding_out_every_frame_is_a_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="holdout_every"):
        ingest(tmp_path, make_images(tmp_path / "c"), holdout_every=1)


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
        tmp_path,
        make_video(tmp_path / "clip.mp4", len(ticks), ticks=ticks),
        max_frames=8,
        holdout_every=0,
        selection="even",
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
    run, _ = ingest(tmp_path, source, selection="even")  # a blank frame is blurred
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
    for name in (".scratch.old", ".capture.old.partial"):  # a killed attempt's
        (run.root / name).mkdir()
    ingest_capture(run, run.read_config()[0], recording()[0])
    assert first == read_transforms(run.capture)
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
    last = [event for event in events if event["event"] == "step"][-1]
    assert last["step"] == last["total"] == 4 + 4, "four looked at, four written"


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
