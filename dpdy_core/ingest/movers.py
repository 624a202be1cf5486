"""Which pixels move, at a glance: one flow at low resolution. The masks stage looks closer. Torch-free."""

import cv2
import numpy as np

from dpdy_core.ingest.epipolar import fit_homography, fit_motion, transfer
from dpdy_core.ingest.flow import consistent, flow_pair, pixel_grid
from dpdy_core.ingest.size import fitted_size

SIZE = 240  # longer side of the frames compared
TOLERANCE = 0.6  # pixels there; the masks stage takes 1 at 480
MIN_CONSISTENT = 0.3
FIT_POINTS = 1500
FAR_BEYOND = 4  # times the usual distance from the main plane's motion


def moving_pixels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(h, w) bool masks at SIZE of two (H, W) uint8 frames: what no moving camera explains, and where flow was found.

    None where it was found hardly anywhere.
    """
    size = fitted_size(first.shape[1], first.shape[0], SIZE)
    a, b = (cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for grey in (first, second))
    forward, backward = flow_pair(a, b)
    found = consistent(forward, backward)
    if found.mean() < MIN_CONSISTENT:
        return None
    start = pixel_grid(*size)[found].astype(np.float64)
    end = start + forward[found]
    sample = slice(None, None, max(1, len(start) // FIT_POINTS))
    moves = np.zeros(a.shape, bool)
    moves[found] = fit_motion(start[sample], end[sample], TOLERANCE).residual(start, end) > TOLERANCE
    # With little parallax an epipolar line can be found for anything; what goes far beyond the rest moves all the same.
    homography = fit_homography(start[sample], end[sample], TOLERANCE)
    if homography is not None:
        off = np.linalg.norm(transfer(homography, start) - end, axis=-1)
        moves[found] |= off > FAR_BEYOND * np.median(off) + 1
    return moves, found
