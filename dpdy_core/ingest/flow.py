"""Dense optical flow between two frames (DIS: Kroeger et al., ECCV 2016) and its forward-backward check."""

import cv2
import numpy as np

GAPS = (1, 2, 4, 8)  # frames; flow over each starts from that over half of it, twice

Flows = dict[tuple[int, int], np.ndarray]  # (H, W, 2) each, by the frames that it leads from and to


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 luma of an (H, W, 3) uint8 RGB image."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def dense_flow(first: np.ndarray, second: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 2) float32 motion in pixels (x, y) that carries `first` onto `second`, both (H, W) uint8.

    `start` (H, W, 2) is a first guess, which finds motion that is too large to be found from nothing.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    return estimator.calc(first, second, None if start is None else start.copy())


def flow_pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow from `first` to `second` and back."""
    return dense_flow(first, second), dense_flow(second, first)


def flow_both_ways(frames: list[np.ndarray], i: int, j: int, known: Flows) -> Flows:
    """Flow between `frames` (H, W) uint8 i and j and back, started from the flows over half the gap if `known`."""
    middle, flows = (i + j) // 2, {}
    for a, b in ((i, j), (j, i)):
        there, rest = known.get((a, middle)), known.get((middle, b))
        start = None if there is None or rest is None else _chained(there, rest)
        flows[a, b] = dense_flow(frames[a], frames[b], start)
    return flows


def _chained(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    target = pixel_grid(first.shape[1], first.shape[0]) + first
    return first + cv2.remap(second, target, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def pixel_grid(width: int, height: int) -> np.ndarray:
    """(H, W, 2) float32 x and y of the pixels in OpenCV's convention: the first centre is (0, 0)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=-1)


def consistent(forward: np.ndarray, backward: np.ndarray, slack: float = 0.5) -> np.ndarray:
    """(H, W) bool: the pixel stays in the image and flows back to where it came from.

    The tolerance is the one of Sundaram et al. (ECCV 2010): 1 % of the squared lengths plus `slack` (squared pixels).
    """
    height, width = forward.shape[:2]
    target = pixel_grid(width, height) + forward
    inside = (target >= 0).all(-1) & (target[..., 0] <= width - 1) & (target[..., 1] <= height - 1)
    returned = cv2.remap(backward, target, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = ((forward + returned) ** 2).sum(-1)
    return inside & (error < 0.01 * ((forward**2).sum(-1) + (returned**2).sum(-1)) + slack)
