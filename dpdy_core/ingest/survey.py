"""A quick look at many frames before some are chosen: how sharp each is, and how far the picture moves. Torch-free."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from dpdy_core.ingest.flow import dense_flow

SURVEY_SIZE = 640  # longer side at which sharpness is measured, pixels: the measure depends on it
FLOW_SIZE = 240  # longer side at which motion is measured, pixels
PER_FRAME = 8  # candidates looked at for each frame that is wanted
READOUT = 0.02  # seconds in which a usual phone reads its rows
SKEW = 0.01  # of the longer side: a picture that moves farther during the readout is bent
FAST_SHARE = 90  # percentile of the speeds that counts: a short jerk does no harm


@dataclass(frozen=True)
class Survey:
    """What was seen of C candidates in time order."""

    index: np.ndarray  # (C,) rising numbers of the frames
    times: np.ndarray  # (C,) in any unit
    sharpness: np.ndarray  # (C,) variance of the Laplacian, comparable between neighbours only
    motion: np.ndarray  # (C,) how far the picture moved since the candidate before, as a share of its longer side


def candidates(count: int, budget: int) -> np.ndarray:
    """Evenly spaced numbers out of `count` frames, the ends included, enough to choose `budget` from."""
    wanted = min(count, PER_FRAME * budget)
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int))


def look(images: Iterable[np.ndarray], index: np.ndarray, times: np.ndarray, check: Callable[[int], None]) -> Survey:
    """The survey of `images`, C (H, W, 3) uint8 RGB at SURVEY_SIZE, one held at a time; `check(done)` may raise."""
    sharpness, motion = np.zeros(len(index)), np.zeros(len(index))
    before: np.ndarray | None = None
    for i, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        sharpness[i] = cv2.Laplacian(grey, cv2.CV_64F).var()  # Pech-Pacheco et al., ICPR 2000
        scale = min(1.0, FLOW_SIZE / max(grey.shape))
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if before is not None:
            flow = dense_flow(before, small)
            motion[i] = np.sqrt((flow**2).sum(-1).mean()) / max(small.shape)
        before = small
        check(i + 1)
    return Survey(index, times, sharpness, motion)


def skew_of_rolling_shutter(survey: Survey, duration: float) -> float:
    """How far the picture moves while a phone reads its rows, as a share of the longer side.

    `duration` is the seconds between the first and the last candidate. 0 where nothing moves.
    """
    gaps = np.diff(survey.times) / max(survey.times[-1] - survey.times[0], 1e-12) * duration
    return READOUT * float(np.percentile(survey.motion[1:] / np.maximum(gaps, 1e-6), FAST_SHARE)) if len(gaps) else 0.0
