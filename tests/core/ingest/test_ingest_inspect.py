import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ingest_samples import SHARED, make_images, make_posed, make_video, picture

from dpdy_core.errors import BadInput
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.verdict import RANKS
from dpdy_core.rundir import write_json

KEYS = {
    *("kind", "frames", "fps", "duration", "width", "height", "rotation", "codec", "variable_frame_rate"),
    *("has_poses", "has_depth", "has_masks", "has_motion_masks", "has_splits", "splits"),
    *("bits_per_pixel", "notes", "looked_at", "sharpness", "brightness", "motion", "cameras"),
    *("warnings", "verdict", "reasons"),
}


def write_clip(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index}.png"), frame[:, :, ::-1])
    return folder


def sharp_clip(count: int = 16) -> list[np.ndarray]:
    """Frames of a sliding texture with detail at all scales, like a photo, of which some parts are nearer than others:
    nothing to complain about.
    """
    generator = np.random.default_rng(0)
    texture = np.zeros((192, 340))
    for cell in (1, 2, 4, 8, 16, 32, 64):
        coarse = generator.standard_normal((192 // cell + 1, 340 // cell + 1))
        texture += cell**0.7 * cv2.resize(coarse, (340, 192), interpolation=cv2.INTER_CUBIC)
    grey = (125 + 40 * texture / texture.std()).clip(0, 255).astype(np.uint8)
    x, y = np.meshgrid(np.arange(256, dtype=np.float32), np.arange(192, dtype=np.float32))
    nearness = 2 + 0.9 * np.sin(x / 40) * np.cos(y / 30)
    return [
        np.repeat(cv2.remap(grey, x + i * nearness, y, cv2.INTER_CUBIC)[:, :, None], 3, axis=2) for i in range(count)
    ]


def unlike(seed: int) -> np.ndarray:
    """A frame that has nothing in common with others."""
    coarse = np.random.default_rng(100 + seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return cv2.resize(coarse, (256, 192), interpolation=cv2.INTER_CUBIC)


def test_report_of_a_video(tmp_path: Path) -> None:
    report = inspect_input(make_video(tmp_path / "clip.mp4", prepare=lambda stream: stream.set_display_rotation(-90)))
    assert report.keys() == KEYS
    assert {key: report[key] for key in ("kind", "frames", "width", "height", "rotation", "codec")} == {
        "kind": "video",
        "frames": 24,
        "width": 48,
        "height": 64,
        "rotation": 90,
        "codec": "h264",
    }
    assert report["fps"] == pytest.approx(24)
    assert report["duration"] == pytest.approx(23 / 24, abs=1e-3)
    assert not report["variable_frame_rate"]
    assert any("small (48x64)" in message for message in report["warnings"])
    assert report["verdict"] == "will fail"
    write_json(tmp_path / "report.json", report)  # plain JSON values only


def test_report_of_posed_frames_and_of_a_folder(tmp_path: Path) -> None:
    posed = inspect_input(make_posed(tmp_path / "posed", fps=10))
    assert posed.keys() == KEYS
    assert posed["has_poses"]
    assert (posed["kind"], posed["frames"], posed["duration"]) == ("nerfstudio", 6, 0.5)
    folder = inspect_input(make_images(tmp_path / "frames", 7))
    assert (folder["kind"], folder["fps"], folder["has_poses"]) == ("images", None, False)
    assert folder["splits"] == {"train": 7, "val": 0, "test": 0}


def test_a_good_clip_has_no_warnings(tmp_path: Path) -> None:
    report = inspect_input(write_clip(tmp_path / "c", sharp_clip()))
    assert report["warnings"] == []
    assert report["verdict"] == "good"


@pytest.mark.parametrize(
    ("spoil", "words", "verdict"),
    [
        (lambda frames: [cv2.GaussianBlur(f, (0, 0), 9) for f in frames], "frames look blurred", "risky"),
        (
            lambda frames: [cv2.GaussianBlur(f, (0, 0), 4) if i % 4 == 0 else f for i, f in enumerate(frames)],
            "25% of the frames are much more blurred",
            "risky",
        ),
        (lambda frames: [f // 2 if i > 7 else f for i, f in enumerate(frames)], "brightness jumps by 5", "risky"),
        (lambda frames: [f // 16 for f in frames], "very dark", "risky"),
        (lambda frames: [255 - f // 16 for f in frames], "over-exposed", "risky"),
        (lambda frames: frames[:5], "only 5 training frames", "risky"),
        (lambda frames: [f for f in frames[::4] for _ in range(4)], "4 of them different", "risky"),
        (lambda frames: [frames[i] for i in np.random.default_rng(0).permutation(16)], "out of order", "risky"),
        (lambda frames: frames[:2], "only 2 training frames", "will fail"),
        (lambda frames: frames[:1] * 16, "the camera stands still", "risky"),
        (lambda frames: [frames[0][:, i : i + 200] for i in range(16)], "near and far things move alike", "risky"),
        (lambda frames: [np.full_like(f, 120) for f in frames], "little can be recognised", "will fail"),
        (lambda frames: frames[:8] + [f[:, ::-1] for f in frames[:8]], "a cut", "risky"),
        (lambda frames: [unlike(i) for i in range(len(frames))], "only 6% of the frames", "will fail"),
    ],
)
def test_each_fault_is_told_with_a_remedy(tmp_path: Path, spoil, words: str, verdict: str) -> None:
    report = inspect_input(write_clip(tmp_path / "c", spoil(sharp_clip())))
    told = [reason for reason in report["reasons"] if words in reason["what"]]
    assert told, report["warnings"]
    assert told[0]["verdict"] == verdict
    assert f"{told[0]['what']}; {told[0]['remedy']}" in report["warnings"]
    assert RANKS.index(report["verdict"]) >= RANKS.index(verdict)


def test_sharpness_falls_with_blur(tmp_path: Path) -> None:
    medians = [
        inspect_input(write_clip(tmp_path / str(sigma), [cv2.GaussianBlur(f, (0, 0), sigma) for f in sharp_clip(4)]))[
            "sharpness"
        ]["median"]
        for sigma in (0.5, 1, 2, 4)
    ]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > 10 * medians[-1]


def test_hdr_is_told(tmp_path: Path) -> None:
    def tag(stream) -> None:
        stream.codec_context.color_trc = 16
        stream.codec_context.color_primaries = 9

    report = inspect_input(make_video(tmp_path / "clip.mp4", 3, codec="libx265", pix_fmt="yuv420p", prepare=tag))
    assert any("HDR" in message for message in report["warnings"])


def test_variable_frame_rate_is_told(tmp_path: Path) -> None:
    ticks = [0, 10, 20, 30, 60, 70, 100, 110]
    assert inspect_input(make_video(tmp_path / "clip.mp4", len(ticks), ticks=ticks))["variable_frame_rate"]


def test_first_and_last_frame_are_decoded(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "c", 30)
    last = folder / "frame29.png"
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(BadInput, match=r"frame29\.png"):
        inspect_input(folder)


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, dpdy_core.ingest.inspect; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_samples_show_the_clip_and_not_its_beginning(tmp_path: Path) -> None:
    """One keyframe at the start only: later frames must be decoded all the same."""
    path = make_video(tmp_path / "clip.mp4", 30)
    expected = max(picture(i).mean() for i in (0, 29)) / 255
    report = inspect_input(path)
    assert report["brightness"]["median"] < expected
    assert report["brightness"]["largest_jump"] > 0


@pytest.mark.skipif(not SHARED.exists(), reason="the shared clips are not on this machine")
@pytest.mark.parametrize(
    ("name", "kind", "frames", "splits"),
    [
        ("desk", "nerfstudio", 50, (30, 20)),
        ("hand_on_shelf_posed", "nerfstudio", 86, (75, 11)),
        ("synthetic_person_gt", "nerfstudio", 40, (40, 0)),
        ("walking_dog/dog-example.mp4", "video", 122, (122, 0)),
    ],
)
def test_shared_clips_are_good_and_quick(name: str, kind: str, frames: int, splits: tuple[int, int]) -> None:
    started = time.process_time()  # of all threads; the wall clock depends on what else runs
    report = inspect_input(SHARED / name)
    assert time.process_time() - started < 20
    assert (report["kind"], report["frames"], report["verdict"]) == (kind, frames, "good")
    assert (report["splits"]["train"], report["splits"]["test"]) == splits
    assert report["has_poses"] == (kind == "nerfstudio")
    assert report["has_depth"] == (name in ("desk", "synthetic_person_gt"))
