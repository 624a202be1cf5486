"""Bilateral space: what is known of some pixels counts for those that are near in place and time and of like colour.

A sparse grid over time, place and colour, blurred along its axes and read again (Paris & Durand, ECCV 2006; Barron &
Poole, ECCV 2016; for masks of a clip Maerki et al., CVPR 2016). Axes: t, y, x, Y, Cr, Cb.
"""

from concurrent.futures import Executor
from functools import partial

import cv2
import numpy as np

from dpdy_core.ingest.pieces import without_specks

FRAMES = 6  # side of a cell in time
PLACE = 0.0875  # of the longer side of the picture
LUMA, CHROMA = 6, 4  # grey levels
SHIFTS = np.array([[0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 1], [1, 0, 1, 1, 0, 1]]) / 2  # cells
BLURS = 2  # by 1 2 1 along every axis
MEDIAN = 5  # pixels: side of the window that clears masks of the noise of single ones


def drawn_masks(images: np.ndarray, seeming: np.ndarray, share: float, pool: Executor) -> np.ndarray:
    """(T, H, W) bool: where more than a `share` of what is alike and near is `seeming` (T, H, W) bool to move.

    `images` (T, H, W, 3) uint8 RGB. What looks like its background, or is plain, shows no motion of its own, and single
    pixels of the background show some.
    """

    def drawn(shares: np.ndarray) -> np.ndarray:
        return without_specks(cv2.medianBlur((shares > share).astype(np.uint8), MEDIAN) > 0)

    return np.stack(list(pool.map(drawn, means_nearby(images, seeming[None], pool)[0])))


def means_nearby(images: np.ndarray, values: np.ndarray, pool: Executor) -> np.ndarray:
    """(N, T, H, W) float32: the means of `values` (N, T, H, W) over what is like each pixel of `images` and near it.

    `images` (T, H, W, 3) uint8 RGB. The mean over several grids, each shifted against the others, so that the edges of
    their cells do not show.
    """
    total = np.zeros(values.shape, np.float32)
    for shift in SHIFTS:
        total += _grid_means(images, values, shift, pool)
    return total / len(SHIFTS)


def _grid_means(images: np.ndarray, values: np.ndarray, shift: np.ndarray, pool: Executor) -> np.ndarray:
    quantities, count, height, width = values.shape
    side = PLACE * max(height, width)
    steps = np.array([FRAMES, side, side, LUMA, CHROMA, CHROMA])
    lengths = (np.array([count, height, width, 256, 256, 256]) // steps).astype(int) + 4  # one empty cell on every side
    look = partial(_cells, images, values, steps, lengths, shift)
    own, inside, pixels, sums = zip(*pool.map(look, range(count)), strict=True)
    cells, place = np.unique(np.concatenate(own), return_inverse=True)
    grid = np.zeros((1 + quantities, len(cells) + 1), np.float32)  # the last one stands for all cells nothing is in
    grid[0, :-1] = np.bincount(place, np.concatenate(pixels))
    for row, each in zip(grid[1:], np.concatenate(sums, axis=1), strict=True):
        row[:-1] = np.bincount(place, each)
    for axis in list(range(len(lengths))) * BLURS:
        stride = int(np.prod(lengths[axis + 1 :]))
        before, after = (grid[:, _index(cells, cells + move)] for move in (-stride, stride))
        grid[:, :-1] = grid[:, :-1] / 2 + (before + after) / 4
    means = (grid[1:] / np.maximum(grid[0], 1e-9)).astype(np.float32)
    parts = np.split(means[:, place], np.cumsum([len(each) for each in own])[:-1], axis=1)
    return np.stack([part[:, pixel] for part, pixel in zip(parts, inside, strict=True)], 1).reshape(values.shape)


def _cells(
    images: np.ndarray, values: np.ndarray, steps: np.ndarray, lengths: np.ndarray, shift: np.ndarray, i: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(C,) the cells of frame `i`, (H * W,) which of them each pixel is in, (C,) how many are, (N, C) their sums."""
    height, width = values.shape[2:]
    colours = cv2.cvtColor(images[i], cv2.COLOR_RGB2YCrCb)
    axes = (i, np.arange(height)[:, None], np.arange(width)[None], *cv2.split(colours))
    key = np.zeros((height, width), np.int64)
    for axis, step, length, moved in zip(axes, steps, lengths, shift, strict=True):
        key = key * length + (np.asarray(axis) / np.float32(step) + np.float32(1 + moved)).astype(np.int64)
    cells, inverse = np.unique(key, return_inverse=True)
    inverse = inverse.reshape(-1).astype(np.int32)
    pixels = np.bincount(inverse, minlength=len(cells))
    sums = np.stack([np.bincount(inverse, each[i].reshape(-1), len(cells)) for each in values])
    return cells, inverse, pixels, sums


def _index(cells: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) where the `wanted` (N,) stand in the sorted `cells` (C,); C for those that do not."""
    found = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
    return np.where(cells[found] == wanted, found, len(cells))
