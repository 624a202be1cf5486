from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ingest_samples import make_run, make_video, recording
from PIL import Image

from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import read_transforms
from dpdy_core.ingest.metadata import focal_of_image, focal_of_tags, focal_share
from dpdy_core.ingest.survey import READOUT, candidates, look, skew_of_rolling_shutter
from dpdy_core.synth.capture import make_capture


def _texture() -> np.ndarray:
    noise = np.random.default_rng(0).random((240, 320, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def _shifted(pixels: float) -> np.ndarray:
    return cv2.warpAffine(_texture(), np.array([[1, 0, pixels], [0, 1, 0]], float), (320, 240), borderMode=2)


def test_motion_is_the_shift_over_the_longer_side() -> None:
    survey = look([_shifted(0), _shifted(3.2), _shifted(3.2)], np.arange(3), np.arange(3.0), lambda _: None)
    assert survey.motion[0] == 0
    assert survey.motion[1] == pytest.approx(0.01, rel=0.15)
    assert survey.motion[2] < 1e-4


def test_blur_lowers_sharpness() -> None:
    images = [_texture(), cv2.GaussianBlur(_texture(), (0, 0), 2), cv2.blur(_texture(), (9, 1))]
    survey = look(images, np.arange(3), np.arange(3.0), lambda _: None)
    assert survey.sharpness[1:].max() < 0.5 * survey.sharpness[0]


def test_skew_is_what_moves_during_the_readout() -> None:
    images = [_shifted(3.2 * i) for i in range(4)]
    survey = look(images, np.arange(4), np.linspace(0, 1, 4), lambda _: None)
    # 1 % of the picture every tenth of a second
    assert skew_of_rolling_shutter(survey, 0.3) == pytest.approx(READOUT * 0.1, rel=0.2)


@pytest.mark.parametrize(("count", "budget", "expected"), [(10, 20, 10), (1000, 20, 160), (161, 20, 160)])
def test_candidates_are_bounded_and_keep_the_ends(count: int, budget: int, expected: int) -> None:
    index = candidates(count, budget)
    assert len(index) == expected
    assert (index[0], index[-1]) == (0, count - 1)
    assert np.diff(index).max() <= np.ceil((count - 1) / (expected - 1))


def test_frames_of_a_made_scene_that_are_blurred_on_purpose_are_left_out(tmp_path: Path) -> None:
    make_capture(tmp_path / "scene", "rigid", 12, 96, 72, 0, recording()[0])
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(12):
        image = cv2.imread(str(tmp_path / f"scene/images/train_{i:03d}.png"))
        cv2.imwrite(str(frames / f"{i:03d}.png"), cv2.GaussianBlur(image, (0, 0), 2) if i in (3, 8) else image)
    run, config = make_run(tmp_path / "run", frames)
    reporter, events = recording()
    ingest_capture(run, config, reporter)
    names = read_transforms(run.capture)["train_filenames"]
    assert names == [f"images/{i:03d}.png" for i in range(12) if i not in (3, 8)]
    assert any("2 frames blurred left out" in e.get("message", "") for e in events)


def test_focal_length_of_tags() -> None:
    assert focal_of_tags({"com.apple.quicktime.camera.focal_length.35mm_equivalent": "26"}) == 26
    for value in ("", "nan", "-3", "0", "1e9", "wide"):
        assert focal_of_tags({"com.apple.quicktime.camera.focal_length.35mm_equivalent": value}) is None
    assert focal_of_tags({"make": "a"}) is None


def test_focal_length_of_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (64, 48)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no image")
    assert focal_of_image(tmp_path / "a.jpg") == 28
    assert focal_of_image(tmp_path / "b.jpg") is None
    assert focal_of_image(tmp_path / "c.jpg") is None


@pytest.mark.parametrize(
    ("size", "millimetres"),
    [((3, 2), 36.0), ((2, 3), 36.0), ((4, 3), 0.8 * np.hypot(36, 24)), ((16, 9), 0.8 * np.hypot(36, 24))],
)
def test_focal_share_is_one_at_the_width_of_the_sensor(size: tuple[int, int], millimetres: float) -> None:
    assert focal_share(millimetres, size[0] * 100, size[1] * 100) == pytest.approx(1)


def test_focal_length_of_a_phones_video_reaches_the_capture(tmp_path: Path) -> None:
    def tag(stream: Any) -> None:
        stream.container.metadata["com.apple.quicktime.camera.focal_length.35mm_equivalent"] = "26"

    run, config = make_run(
        tmp_path / "run", make_video(tmp_path / "clip.mov", 4, prepare=tag, movflags="use_metadata_tags")
    )
    ingest_capture(run, config, recording()[0])
    assert read_transforms(run.capture)["focal_35mm"] == 26
