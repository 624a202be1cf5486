"""Motion masks once cameras and depth are known: what a frame shows differs from what stands still there."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.bilateral import drawn_masks
from dpdy_core.ingest.drift import drifts
from dpdy_core.ingest.flow import Flows, pixel_grid
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.plate import CLEAN, UNKNOWN, background_depth, plate, sources

ROUNDS = 3  # each sees a background without what the one before found to move
WHITE, WHITE_SHARE, GAIN = 200, 99.5, 3.0  # dark clips are brightened to this value at this percentile, by GAIN at most
DIFFERENT = 20.0  # grey levels, of 255, in the most different channel
BLUR = 0.7  # pixels: deviation of the smoothing against resampling
SHADE = (0.55, 1.05)  # brightness that a shadow, or its end, leaves of a surface
SHADE_WINDOW = 7  # pixels
MOST = 2.0  # times DIFFERENT, beyond which nothing is more certain
EARLIER = (1.0, 0.25)  # what the mask so far counts, in units of DIFFERENT, where the background is unknown, doubtful
DRIFT = 0.6  # the most that drift counts, in units of DIFFERENT: part of a mover may have the background's colours
DRIFTING = (4.0, 24.0)  # grey levels (see `drifts`) from which it counts, and counts in full
WORKERS = 8  # frames looked at at once
EVIDENCE = 0.85  # in units of DIFFERENT, from which a pixel seems to move
SHARE = 0.3  # of the pixels like it and near it that seem to, from which it does


def refined_masks(
    images: np.ndarray,
    moving: np.ndarray,
    ignored: np.ndarray,
    static_depth: Callable[[np.ndarray], np.ndarray],
    cameras: Cameras,
    check: Callable[[int, int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """(T, H, W) bool: what of `images` (T, H, W, 3) uint8 RGB moves, starting from the masks `moving` (T, H, W) bool.

    And what of it, (T, H, W) bool, does not seem to by itself: it is like what does, and its depth may be found.

    `ignored` (T, H, W) bool shows nothing of the scene. `static_depth` gives the planar depth (T, h, w), 0 = none, of
    static pixels (T, H, W) bool; it may be smaller than the images. `cameras` are those of the frames.
    `check(done, total)` is called after each frame and may raise.
    """
    count, height, width = moving.shape
    images = _brightened(images)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), BLUR) for image in images])
    full = pinholes(cameras.resized(width, height))
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        drift, flows = drifts(images, full, pool, lambda done, _: check(done, (ROUNDS + 1) * count))
        drifting = [DRIFT * np.clip((d - DRIFTING[0]) / (DRIFTING[1] - DRIFTING[0]), 0, 1) for d in drift]
        for turn in range(ROUNDS):
            depth = static_depth(~(moving | ignored))
            small = pinholes(cameras.resized(depth.shape[2], depth.shape[1]))
            chosen = [sources(i, depth[i], small) for i in range(count)]
            behind = background_depth(depth, small, chosen)
            surface = np.stack([cv2.resize(d, (width, height), interpolation=cv2.INTER_LINEAR) for d in behind])
            look = partial(_evidence, smooth, moving, drifting, ignored, surface, full, chosen)
            found: list[np.ndarray] = []
            for evidence in pool.map(look, range(count)):
                found.append(evidence)
                check((turn + 1) * count + len(found), (ROUNDS + 1) * count)
            seeming = np.stack(list(pool.map(partial(_seeming, found, flows), range(count))))
            moving = drawn_masks(images, seeming, SHARE, pool) & ~ignored
    return moving, moving & ~seeming & (np.stack(found) < EVIDENCE)


def _brightened(images: np.ndarray) -> np.ndarray:
    """`images` (T, H, W, 3) uint8 times one factor, 1 or more, after which the clip uses the range of grey levels."""
    white = max(float(np.percentile(images.max(-1), WHITE_SHARE)), 1.0)
    return np.stack([cv2.convertScaleAbs(image, alpha=np.clip(WHITE / white, 1, GAIN)) for image in images])


def _evidence(
    smooth: np.ndarray,
    moving: np.ndarray,
    drifting: list[np.ndarray],
    ignored: np.ndarray,
    surface: np.ndarray,
    cameras: list[Pinhole],
    chosen: list[list[int]],
    i: int,
) -> np.ndarray:
    """(H, W) float32 how surely frame `i` moves, in units of DIFFERENT, the static scene's depth being `surface`."""
    colours, known = plate(i, smooth, moving | ignored, surface, cameras, chosen[i])
    off = np.where(known == UNKNOWN, 0, difference(smooth[i].astype(np.float32), colours)) / DIFFERENT
    # An edge pixel shows part of the mover: where what it borders on differs more than need be, so must it.
    off = off * np.minimum(1, MOST / np.maximum(cv2.dilate(off, np.ones((3, 3), np.uint8)), MOST))
    doubt = np.select([known == CLEAN, known == UNKNOWN], [0, EARLIER[0]], EARLIER[1]) * moving[i]
    evidence: np.ndarray = (np.minimum(off, MOST) + doubt + drifting[i]).astype(np.float32)
    return evidence


def _seeming(evidence: list[np.ndarray], flows: Flows, i: int) -> np.ndarray:
    """(H, W) bool: what of frame `i` seems to move by the mean of its `evidence` and that of the frames beside it."""
    height, width = evidence[i].shape
    total, count = evidence[i].copy(), np.ones_like(evidence[i])
    for j in (i - 1, i + 1):
        if (i, j) not in flows:
            continue
        flow = flows[i, j].astype(np.float32)
        known = np.isfinite(flow[..., 0])
        place = pixel_grid(width, height) + np.nan_to_num(flow)
        total += np.where(known, cv2.remap(evidence[j], place, None, cv2.INTER_LINEAR), 0)
        count += known
    seeming: np.ndarray = total / count > EVIDENCE
    return seeming


def difference(image: np.ndarray, background: np.ndarray) -> np.ndarray:
    """(H, W) float32: by how much `image` differs from `background`, both (H, W, 3) float32, in grey levels.

    The least over shifts by a pixel, for the plate is nowhere sharper, and with or without a common factor of all
    channels around the pixel, in SHADE: shadows change how bright a surface is, not what is on it.
    """
    window = (SHADE_WINDOW, SHADE_WINDOW)
    shared = cv2.boxFilter(_dot(image, background), -1, window)
    factor = np.clip(shared / np.maximum(cv2.boxFilter(_dot(background, background), -1, window), 1), *SHADE)
    return np.minimum(_least(image, background), _least(image, background * factor[..., None]))


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product: np.ndarray = np.einsum("hwc,hwc->hw", one, other)
    return product


def _least(image: np.ndarray, background: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(background, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    least = np.full((height, width), np.inf, np.float32)
    for down in range(3):
        for right in range(3):
            red, green, blue = cv2.split(cv2.absdiff(image, padded[down : down + height, right : right + width]))
            np.minimum(least, cv2.max(cv2.max(red, green), blue), out=least)
    return least
