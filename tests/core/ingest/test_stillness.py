import cv2
import numpy as np
import pytest

from dpdy_core.ingest.stillness import STILL, background_shift

SIZE = (240, 180)


def _clip(shift: float, frames: int = 7, noise: float = 2.0) -> list[np.ndarray]:
    """A picture that drifts by `shift` pixels in all, with noise."""
    dice = np.random.default_rng(1)
    base = cv2.GaussianBlur(dice.random((SIZE[1], SIZE[0])).astype(np.float32), (0, 0), 2)
    base = (base - base.min()) / np.ptp(base) * 255
    clip = []
    for i in range(frames):
        moved = cv2.warpAffine(base, np.array([[1, 0, shift * i / (frames - 1)], [0, 1, 0]]), SIZE, borderMode=2)
        clip.append(np.clip(moved + noise * dice.standard_normal(moved.shape), 0, 255).astype(np.uint8))
    return clip


def _all(clip: list[np.ndarray]) -> list[np.ndarray]:
    return [np.ones(frame.shape, bool) for frame in clip]


def test_a_noisy_still_picture_is_still() -> None:
    clip = _clip(0.0)
    shift = background_shift(clip, _all(clip), lambda: None)
    assert shift is not None
    assert shift < STILL


def test_a_drift_is_measured() -> None:
    clip = _clip(3.0)
    shift = background_shift(clip, _all(clip), lambda: None)
    assert shift == pytest.approx(3.0 / SIZE[0], rel=0.1)


def test_what_moves_in_front_does_not_count() -> None:
    clip, static = _clip(0.0), []
    mover = np.random.default_rng(2).integers(0, 255, (90, 120), dtype=np.uint8)
    for i, frame in enumerate(clip):
        frame[40:130, 10 * i : 10 * i + 120] = mover
        mask = np.ones(frame.shape, bool)
        mask[35:135, max(0, 10 * i - 5) : 10 * i + 125] = False
        static.append(mask)
    shift = background_shift(clip, static, lambda: None)
    assert shift is not None
    assert shift < STILL


def test_one_blank_frame_among_few_is_no_still_camera() -> None:
    clip = _clip(0.0)
    clip[3] = np.full_like(clip[3], 128)
    shift = background_shift(clip, _all(clip), lambda: None)
    assert shift is None or shift > STILL


def test_nothing_is_told_without_texture() -> None:
    clip = [np.full((SIZE[1], SIZE[0]), 99, np.uint8)] * 5
    assert background_shift(clip, _all(clip), lambda: None) is None
