"""Which frames are taken and which are kept for testing. Torch-free."""

from collections.abc import Sequence

import numpy as np

from dpdy_core.errors import BadSettings

MIN_FRAMES_FOR_HOLDOUT = 24


def choose_evenly(times: Sequence[float] | np.ndarray, budget: int) -> list[int]:
    """Indices of at most `budget` (>= 2) of the frames at rising `times`, spread evenly in time, ends included.

    Each of `budget` equally spaced moments takes the nearest frame. A frame nearest to several moments (a gap in a
    variable frame rate) is taken once, so that there can be fewer.
    """
    moments = np.asarray(times, dtype=np.float64)
    if len(moments) <= budget:
        return list(range(len(moments)))
    targets = np.linspace(moments[0], moments[-1], budget)
    after = np.clip(np.searchsorted(moments, targets), 1, len(moments) - 1)
    nearer = np.where(targets - moments[after - 1] < moments[after] - targets, after - 1, after)
    nearer[0], nearer[-1] = 0, len(moments) - 1  # exactly, whatever the rounding of linspace
    return [int(i) for i in np.unique(nearer)]


def holdout(count: int, every: int) -> list[int]:
    """Positions, out of `count` chosen frames, kept for testing: every `every`-th, the first and last never.

    Clips of fewer than 24 frames keep none, nor does `every` = 0.
    """
    if every == 1:
        raise BadSettings("ingest.holdout_every = 1 leaves no frame to train on", "use 0 (none) or at least 2")
    if every == 0 or count < MIN_FRAMES_FOR_HOLDOUT:
        return []
    return list(range(every // 2, count - 1, every))


def frame_budget(available: int, max_frames: int, every: int) -> int:
    """How many of `available` frames to take: `max_frames` to train on, and the held-out ones between them."""
    budget = min(available, max_frames)
    with_tests = max(budget, min(available, MIN_FRAMES_FOR_HOLDOUT))
    while with_tests < available and with_tests + 1 - len(holdout(with_tests + 1, every)) <= max_frames:
        with_tests += 1
    return with_tests if with_tests - len(holdout(with_tests, every)) <= max_frames else budget
