from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dpdy_core.ingest.bilateral import FRAMES, PLACE, SHIFTS, means_nearby


def _means(images: np.ndarray, marked: np.ndarray) -> np.ndarray:
    with ThreadPoolExecutor(2) as pool:
        return means_nearby(images, marked[None], pool)[0]


def test_pixels_of_one_colour_take_a_mean_over_the_cells_around() -> None:
    """Two passes of 1 2 1 along each axis, for all pairs of pixels: no cell between two of them is empty."""
    count, height, width = 14, 12, 24
    marked = np.random.default_rng(0).random((count, height, width)) < 0.3
    expected = np.zeros(marked.shape)
    for shift in SHIFTS:
        weights = []
        for length, side, moved in zip(marked.shape, (FRAMES, PLACE * width, PLACE * width), shift[:3], strict=True):
            cell = np.floor(np.arange(length) / side + moved).astype(int)
            blur = np.eye(cell[-1] + 1) / 2 + (np.eye(cell[-1] + 1, k=1) + np.eye(cell[-1] + 1, k=-1)) / 4
            weights.append((blur @ blur)[np.ix_(cell, cell)])
        total = np.einsum("at,by,cx,tyx->abc", *weights, marked.astype(float))
        expected += total / np.einsum("at,by,cx->abc", *weights) / len(SHIFTS)
    found = _means(np.full((*marked.shape, 3), 90, np.uint8), marked)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_marks_reach_what_looks_alike_and_not_what_it_stands_before() -> None:
    images = np.full((6, 60, 80, 3), (60, 130, 60), np.uint8)
    images[:, 10:50, 38:44] = (170, 140, 60)
    marked = np.zeros(images.shape[:3], bool)
    marked[:, 10:46, 38:44] = True  # not its lower end
    marked[:, 20:24, 10:12] = True  # a speck on the wall
    shares = _means(images, marked)
    assert shares[:, 10:50, 38:44].min() > 0.5
    assert shares[marked].max() > 0.9
    beside = np.ones(images.shape[:3], bool)
    beside[:, 10:50, 38:44] = False
    assert shares[beside].max() < 0.1


def test_marks_end_with_time_and_place() -> None:
    images = np.full((60, 20, 160, 3), 90, np.uint8)
    marked = np.zeros(images.shape[:3], bool)
    marked[:6, :, :20] = True
    shares = _means(images, marked)
    assert shares[:3, :, :10].min() > 0.25
    assert shares[30:].max() == 0
    assert shares[:, :, 80:].max() == 0
