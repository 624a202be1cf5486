import numpy as np
from textured_room import TEXTURES

from dpdy_core.ingest.flow import consistent, dense_flow, flow_pair, grey


def _frames(shift: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    picture = grey(np.rint(TEXTURES[0] * 255).astype(np.uint8))
    x, y = shift
    return picture[40:160, 40:200].copy(), picture[40 - y : 160 - y, 40 - x : 200 - x].copy()


def test_flow_points_from_the_first_frame_to_the_second() -> None:
    forward, backward = flow_pair(*_frames((6, -3)))
    inside = (slice(20, -20), slice(20, -20))
    np.testing.assert_allclose(np.median(forward[inside], axis=(0, 1)), [6, -3], atol=0.2)
    np.testing.assert_allclose(np.median(backward[inside], axis=(0, 1)), [-6, 3], atol=0.2)
    assert consistent(forward, backward)[inside].mean() > 0.95


def test_pixels_that_leave_the_image_are_inconsistent() -> None:
    forward, backward = flow_pair(*_frames((20, 0)))
    assert consistent(forward, backward)[:, -15:].mean() < 0.1


def test_flow_that_does_not_come_back_is_inconsistent() -> None:
    forward = np.full((30, 40, 2), 4, np.float32)
    assert not consistent(forward, np.zeros_like(forward)).any()
    assert consistent(forward, -forward)[:-5, :-5].all()


def test_a_first_guess_finds_large_motion() -> None:
    first, second = _frames((36, 0))
    guess = np.zeros((*first.shape, 2), np.float32)
    guess[..., 0] = 34
    found = dense_flow(first, second, guess)
    np.testing.assert_allclose(np.median(found[:, 20:100, 0]), 36, atol=0.5)
    assert (guess[..., 0] == 34).all(), "the guess is not written to"
