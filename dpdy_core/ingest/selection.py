"""Which frames are taken and which are kept for testing. Torch-free."""

from collections.abc import Sequence

import numpy as np

from dpdy_core.errors import BadSettings
from dpdy_core.ingest.survey import Survey

MIN_FRAMES_FOR_HOLDOUT = 24
MOTION_SHARE = 0.25  # of the spacing that follows motion, not time: no gap is more than a third wider for it
REACH = 0.25  # of the spacing: how far from its moment a sharper frame may lie
BLURRED = 0.5  # of the median sharpness of the candidates around
AROUND = 4  # candidates to either side that this median is taken over
REPEATED = 0.1 / 240  # of the longer side: less motion cannot be seen
LARGEST_GAP = 2.0  # times the even spacing, for frames that are left out


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


def choose_sharp(survey: Survey, budget: int) -> tuple[list[int], int, int]:
    """At most `budget` (>= 2) candidates of the survey, their numbers, and how many were left out as blurred and as
    repeated.

    Moments are spaced by time and, to a quarter, by motion; each takes the sharpest candidate near it. Blurred frames
    and such that show what the one before shows are then left out where the gap stays below twice the even spacing.
    The first and the last frame always stay.
    """
    times = survey.times.astype(np.float64)
    chosen = np.array(_near_moments(times, survey, budget))
    widest = _widest(times, min(budget, len(times)))
    relative = survey.sharpness / np.maximum(_local_median(survey.sharpness), 1e-12)
    by_blur = [int(i) for i in chosen[np.argsort(relative[chosen], kind="stable")] if relative[i] < BLURRED]
    sharp = _without(chosen.tolist(), by_blur, times, widest)
    path = np.cumsum(survey.motion)
    kept = sharp[:1]
    for here, after in zip(sharp[1:], [*sharp[2:], None], strict=True):
        still = path[here] - path[kept[-1]] < REPEATED
        if after is None or not still or times[after] - times[kept[-1]] > widest:
            kept.append(here)
    return [int(survey.index[i]) for i in kept], len(chosen) - len(sharp), len(sharp) - len(kept)


def _near_moments(times: np.ndarray, survey: Survey, budget: int) -> list[int]:
    """Positions of the sharpest candidates near `budget` moments."""
    if len(times) <= budget:
        return list(range(len(times)))
    along = _shares(times)
    path = np.cumsum(survey.motion)
    if path[-1] > REPEATED * budget:
        along = (1 - MOTION_SHARE) * along + MOTION_SHARE * _shares(path)
    chosen = [0]
    spacing = 1 / (budget - 1)
    widest = _widest(times, budget)
    for moment in np.arange(1, budget - 1) * spacing:
        near = np.flatnonzero(np.abs(along - moment) <= REACH * spacing)
        if not len(near):
            near = np.array([np.abs(along - moment).argmin()])
        last = chosen[-1]
        within = near[times[near] - times[last] <= widest]
        if not len(within):  # few candidates: the next ones lie far apart
            within = np.array([max(last + 1, int(np.searchsorted(times, times[last] + widest, side="right")) - 1)])
        chosen.append(int(within[survey.sharpness[within].argmax()]))
    return sorted({*chosen, len(times) - 1})


def _widest(times: np.ndarray, budget: int) -> float:
    """The largest gap that `budget` frames may leave."""
    return float(LARGEST_GAP * (times[-1] - times[0]) / max(budget - 1, 1) * (1 + 1e-6))


def _shares(values: np.ndarray) -> np.ndarray:
    return (values - values[0]) / (values[-1] - values[0])


def _local_median(values: np.ndarray) -> np.ndarray:
    """(C,) median over the neighbours, without the value itself."""
    medians = np.empty(len(values))
    for i in range(len(values)):
        others = np.r_[values[max(0, i - AROUND) : i], values[i + 1 : i + 1 + AROUND]]
        medians[i] = np.median(others) if len(others) else values[i]
    return medians


def _without(chosen: list[int], unwanted: list[int], times: np.ndarray, widest: float) -> list[int]:
    """`chosen` less those of `unwanted`, the worst first, whose neighbours are then at most `widest` apart."""
    kept = list(chosen)
    for candidate in unwanted:
        place = kept.index(candidate)
        inner = 0 < place < len(kept) - 1
        if inner and times[kept[place + 1]] - times[kept[place - 1]] <= widest:
            kept.pop(place)
    return kept


def make_room(chosen: list[int], tests: list[int], times: np.ndarray, budget: int) -> list[int]:
    """`chosen` without the inner frame nearest in time to each test frame, as far as both exceed `budget` together.

    So a test frame has no training frame closer by than others have, whatever the rate of the clip.
    """
    kept = list(chosen)
    for test in tests[: max(0, len(chosen) + len(tests) - budget)]:
        kept.remove(min(kept[1:-1], key=lambda i: (abs(times[i] - times[test]), i)))
    return kept


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
