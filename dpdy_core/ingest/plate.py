"""What a clip shows behind all that moves: depth and colours of the static scene, put together from other frames.

T frames, H W pixels. Depth is planar, 0 = none. Pixels are OpenCV's (see `Pinhole`).
"""

import cv2
import numpy as np

from dpdy_core.ingest.flow import pixel_grid
from dpdy_core.ingest.pinhole import Pinhole

SOURCES = 16  # frames that a plate is made of
SEEN = 0.4  # share of a frame's static points that another must see to be one of them
PROBES = 400  # static points looked at for that
FEWEST = 3  # colours of which a middle one is taken
BEHIND = 1.05  # times the static depth there, beyond which a point is hidden
NONE = 256  # a colour that nobody saw
UNKNOWN, DOUBTFUL, CLEAN = 0, 1, 2  # how far a plate's colour is known


def sources(index: int, depth: np.ndarray, cameras: list[Pinhole]) -> list[int]:
    """At most SOURCES frames, spread over the clip, that see what frame `index` with static `depth` (H, W) sees."""
    height, width = depth.shape
    y, x = np.nonzero(depth > 0)
    others = [j for j in range(len(cameras)) if j != index]
    if len(x) == 0 or not others:
        return []
    step = max(1, len(x) // PROBES)
    points = cameras[index].lift(np.column_stack([x, y])[::step].astype(float), depth[y, x][::step].astype(float))
    share = {}
    for j in others:
        pixels, z = cameras[j].project(points)
        share[j] = float(((z > 0) & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)).mean())
    seeing = [j for j in others if share[j] >= SEEN] or sorted(others, key=lambda j: -share[j])[:FEWEST]
    chosen = np.linspace(0, len(seeing) - 1, min(SOURCES, len(seeing))).round().astype(int)
    return [seeing[k] for k in chosen]


def background_depth(depth: np.ndarray, cameras: list[Pinhole], chosen: list[list[int]]) -> np.ndarray:
    """(T, H, W) float32 depth of the static scene, also behind what moves, of the static `depth` (T, H, W).

    The points of the `chosen` frames of each, and its own, are thrown into it one frame at a time, the nearest to each
    pixel; the median over the frames stands, so that what only some of them take for static does not. Holes get the
    depth of the nearest pixel that has one; 0 throughout where there is none.
    """
    count, height, width = depth.shape
    clouds = []
    for i in range(count):
        y, x = np.nonzero(depth[i] > 0)
        clouds.append(cameras[i].lift(np.column_stack([x, y]).astype(float), depth[i][y, x].astype(float)))
    result = np.zeros_like(depth, dtype=np.float32)
    for i in range(count):
        layers = np.stack([_thrown(clouds[j], cameras[i], (width, height)) for j in [i, *chosen[i]]])
        layers.sort(axis=0)
        known = np.isfinite(layers).sum(0)
        middle = np.take_along_axis(layers, np.maximum((known - 1) // 2, 0)[None], axis=0)[0]
        result[i] = filled(np.where(known >= min(2, len(layers)), middle, 0).reshape(height, width).astype(np.float32))
    return result


def _thrown(points: np.ndarray, camera: Pinhole, size: tuple[int, int]) -> np.ndarray:
    """(H * W,) float32 depth of the nearest of the `points` (N, 3) at each pixel of `camera`; infinite without any.

    A point covers the four pixels around it: no gap then opens between those of neighbouring pixels.
    """
    width, height = size
    nearest = np.full(width * height, np.inf, np.float32)
    pixels, z = camera.project(points)
    ahead = z > 0
    corner, z = np.floor(pixels[ahead]).astype(np.int64), z[ahead].astype(np.float32)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = corner[:, 0] + right, corner[:, 1] + down
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.minimum.at(nearest, y[inside] * width + x[inside], z[inside])
    return nearest


def filled(depth: np.ndarray) -> np.ndarray:
    """`depth` (H, W) with the nearest pixel's where it has none."""
    hole = (depth <= 0).astype(np.uint8)
    if hole.all() or not hole.any():
        return depth
    _, labels = cv2.distanceTransformWithLabels(hole, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(labels.max() + 1, np.float32)
    values[labels[hole == 0]] = depth[hole == 0]
    return values[labels]


def plate(
    index: int,
    images: np.ndarray,
    moving: np.ndarray,
    depth: np.ndarray,
    cameras: list[Pinhole],
    chosen: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) float32 colours that frame `index` would show without movers, and (H, W) uint8 how far they are known.

    The median over the `chosen` frames of the colour that each shows of the point at the background's `depth`
    (T, H, W), where the point is in the picture, not hidden, and not `moving` (T, H, W) bool there: even one such frame
    says more than many with a mover. Of all that show it where none is left, if FEWEST do, DOUBTFUL then.
    `images` (T, H, W, 3) uint8.
    """
    height, width = depth.shape[1:]
    grid = pixel_grid(width, height).reshape(-1, 2).astype(float)
    points = cameras[index].lift(grid, depth[index].reshape(-1).astype(float))
    if len(chosen) < FEWEST:
        return np.zeros((height, width, 3), np.float32), np.full((height, width), UNKNOWN, np.uint8)
    colours = np.zeros((height, width, 3, len(chosen)), np.int16)
    shown, still = np.zeros((2, height, width, len(chosen)), bool)
    for n, j in enumerate(chosen):
        pixels, z = cameras[j].project(points)
        place, z = pixels.reshape(height, width, 2).astype(np.float32), z.reshape(height, width)
        surface = cv2.remap(depth[j], place, None, cv2.INTER_NEAREST, borderValue=0)  # 0 outside of the picture
        moves = cv2.remap(moving[j].astype(np.uint8), place, None, cv2.INTER_NEAREST)
        colours[..., n] = cv2.remap(images[j], place, None, cv2.INTER_LINEAR)
        shown[..., n] = (z > 0) & (z < BEHIND * surface)
        still[..., n] = shown[..., n] & (moves == 0)
    clean: np.ndarray = np.any(still, axis=-1)
    used = np.where(clean[..., None], still, shown)
    known = clean | (used.sum(-1) >= FEWEST)
    middle = _median(np.where(used[:, :, None], colours, NONE).astype(np.int16))
    return middle, np.where(clean, CLEAN, np.where(known, DOUBTFUL, UNKNOWN)).astype(np.uint8)


def _median(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 of (H, W, 3, N) int16, NONE not counted: the middle one, or the mean of the middle two."""
    colours.sort(axis=-1)  # NONE last
    count = (colours != NONE).sum(-1, keepdims=True)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, colours.shape[-1] - 1)
    pair = np.take_along_axis(colours, low, -1) + np.take_along_axis(colours, high, -1)
    return pair[..., 0].astype(np.float32) / 2
