"""Whether the camera stands still: how far the background is from where it was. Torch-free."""

from collections.abc import Callable

import cv2
import numpy as np

STILL = 0.001  # of the longer side: the median background point moves less (a third of a pixel at 320)
QUANTILE = 0.95  # of the frames that must be this close to each reference: a knock does not count
REFERENCES = 3  # frames that all others are compared with: the first, the middle and the last
CORNERS = 400
MIN_CORNERS = 12
_TERMINATION = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)


def background_shift(frames: list[np.ndarray], static: list[np.ndarray], check: Callable[[], None]) -> float | None:
    """How far the background moves at most within the clip, as a share of the longer side; None: cannot be told.

    `frames` are T (H, W) uint8, `static` T (H, W) bool. Corners of a few reference frames are followed (Lucas & Kanade
    in pyramids: Bouguet 2000) to all frames; the shift of a frame is the median length of their motion, the answer
    its 95 % quantile over the frames.
    """
    shifts = []
    for reference in np.unique(np.linspace(0, len(frames) - 1, REFERENCES).round().astype(int)):
        allowed = static[reference].astype(np.uint8)
        corners = cv2.goodFeaturesToTrack(frames[reference], CORNERS, 0.01, 5, mask=allowed)
        if corners is None or len(corners) < MIN_CORNERS:
            continue
        for i in range(len(frames)):
            check()
            if i != reference and (shift := _shift(frames[reference], frames[i], corners, static[i])) is not None:
                shifts.append(shift / max(frames[i].shape))
    return float(np.quantile(shifts, QUANTILE, method="higher")) if len(shifts) >= len(frames) - 1 else None


def _shift(first: np.ndarray, second: np.ndarray, corners: np.ndarray, static: np.ndarray) -> float | None:
    """Pixels that the median corner moves, lost ones counted as far; None where the mover hides nearly all."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, None, winSize=(15, 15), criteria=_TERMINATION)
    xy = np.clip(np.rint(moved[:, 0]), 0, [first.shape[1] - 1, first.shape[0] - 1]).astype(int)
    visible = static[xy[:, 1], xy[:, 0]]
    if visible.sum() < MIN_CORNERS:
        return None
    lengths = np.linalg.norm(moved[:, 0] - corners[:, 0], axis=-1)
    return float(np.median(np.where(found[:, 0] > 0, lengths, np.inf)[visible]))
