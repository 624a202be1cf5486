import cv2
import numpy as np
import pytest
from textured_room import camera, render, sideways

from dpdy_core.ingest.links import Link, find_features, groups, link_frames, pairs_in_order
from dpdy_core.ingest.movers import moving_pixels
from dpdy_core.ingest.verdict import NO_PARALLAX, PARALLAX


def greys(poses: list[np.ndarray]) -> list[np.ndarray]:
    return [cv2.cvtColor(render(pose, 0.5, False)[0], cv2.COLOR_RGB2GRAY) for pose in poses]


def link(first: np.ndarray, second: np.ndarray) -> Link | None:
    found = link_frames([first, second], dict(enumerate(map(find_features, (first, second)))), [(0, 1)])
    return found[0] if found else None


def test_a_camera_that_moves_shows_parallax_and_one_that_turns_does_not() -> None:
    target = np.array([0.0, -0.3, -3.0])
    moved = link(*greys([sideways(5, 1.5)[0], sideways(5, 1.5)[4]]))
    turned = link(*greys([camera(np.zeros(3), target), camera(np.zeros(3), target + np.array([0.5, 0.1, 0.0]))]))
    assert moved is not None
    assert turned is not None
    assert moved.parallax > PARALLAX
    assert turned.parallax < NO_PARALLAX
    assert turned.moved > 10


def test_gain_is_that_of_the_same_things() -> None:
    first, second = greys(sideways(3, 0.3)[:2])
    found = link(first, (0.5 * second).astype(np.uint8))
    assert found is not None
    assert found.gain == pytest.approx(0.5, abs=0.03)


def test_pictures_of_different_things_are_not_linked() -> None:
    dice = np.random.default_rng(0)
    coarse = dice.integers(0, 255, (2, 30, 40), dtype=np.uint8)
    assert link(*(cv2.resize(one, (160, 120), interpolation=cv2.INTER_CUBIC) for one in coarse)) is None


def test_a_picture_without_features_has_no_links() -> None:
    flat = np.full((60, 80), 90, np.uint8)
    assert find_features(flat)[0].shape == (0, 2)
    assert link(flat, flat) is None


def test_groups_hang_together_by_chains() -> None:
    assert groups(6, [(0, 1), (1, 3), (4, 5)]) == [[0, 1, 3], [4, 5], [2]]
    assert groups(3, []) == [[0], [1], [2]]


def test_pairs_are_in_order_and_each_once() -> None:
    pairs = pairs_in_order(10)
    assert len(set(pairs)) == len(pairs) == 9 + 8 + 6 + 2
    assert all(a < b for a, b in pairs)


def test_moving_pixels_are_those_of_the_mover() -> None:
    poses = sideways(9, 0.6)
    (first, _, moving), (second, _, _) = render(poses[3], 0.3, True), render(poses[4], 0.45, True)
    found = moving_pixels(*(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (first, second)))
    assert found is not None
    moves, known = found
    assert moves[moving & known].mean() > 0.6
    assert moves[~moving & known].mean() < 0.1


def test_nothing_is_said_of_frames_that_share_nothing() -> None:
    dice = np.random.default_rng(1)
    assert moving_pixels(*dice.integers(0, 255, (2, 120, 160), dtype=np.uint8)) is None
