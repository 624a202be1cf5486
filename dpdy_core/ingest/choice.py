"""Looks at a source's frames and chooses those that are kept. Torch-free.

Held-out frames are chosen by time alone, before any picture is looked at, and are then not looked at either: what they
show decides nothing about the training frames.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dpdy_core.config import IngestConfig
from dpdy_core.ingest.frames import SourceCapture, SourceFrame
from dpdy_core.ingest.selection import choose_evenly, choose_sharp, frame_budget, holdout, make_room
from dpdy_core.ingest.size import fitted_size
from dpdy_core.ingest.survey import SKEW, SURVEY_SIZE, Survey, candidates, look, skew_of_rolling_shutter
from dpdy_core.ingest.video import Video, read_frames
from dpdy_core.progress import Reporter


@dataclass(frozen=True)
class Choice:
    """Rising numbers of the frames to train on and of those to test on, and how many were looked at for it."""

    train: list[int]
    test: list[int]
    looked: int = 0


def frames_of_video(video: Video, settings: IngestConfig, reporter: Reporter) -> Choice:
    """The frames of a video to keep. One decoded frame is held at a time."""
    times = np.asarray(video.times, dtype=float)
    even, tests, budget = _by_time(times, settings)
    if settings.selection == "even":
        return Choice(even, tests)
    index = np.setdiff1d(candidates(len(times), budget), tests)
    images = read_frames(video, index.tolist(), fitted_size(video.width, video.height, SURVEY_SIZE))
    total = len(index) + budget
    survey = look((rgb for _, rgb in images), index, times[index], lambda done: reporter.step(done, total))
    skew = skew_of_rolling_shutter(survey, video.duration)
    if skew > SKEW:
        reporter.warn(
            f"the picture moves fast (by {skew:.1%} of its longer side in 20 ms): a camera with a rolling shutter, as "
            "phones have, bends it, and the camera poses suffer; film more slowly"
        )
    return Choice(_sharp(survey, times, tests, budget, reporter), tests, len(index))


def frames_of_capture(
    source: SourceCapture, training: list[SourceFrame], settings: IngestConfig, reporter: Reporter
) -> Choice:
    """Positions in `training`, the frames of a capture without splits, to keep."""
    times = np.arange(len(training), dtype=float)
    even, tests, budget = _by_time(times, settings)
    if settings.selection == "even":
        return Choice(even, tests)
    index = np.setdiff1d(candidates(len(training), budget), tests)
    size = fitted_size(source.width, source.height, SURVEY_SIZE)
    images = (cv2.resize(source.picture(training[i]), size, interpolation=cv2.INTER_AREA) for i in index)
    total = len(index) + budget
    survey = look(images, index, times[index], lambda done: reporter.step(done, total))
    return Choice(_sharp(survey, times, tests, budget, reporter), tests, len(index))


def _by_time(times: np.ndarray, settings: IngestConfig) -> tuple[list[int], list[int], int]:
    """Frames to train on and to test on, evenly in time, and how many may be kept in all."""
    budget = frame_budget(len(times), settings.max_frames, settings.holdout_every)
    even = choose_evenly(times, budget)
    tests = [even[i] for i in holdout(len(even), settings.holdout_every)]
    return sorted(set(even) - set(tests)), tests, budget


def _sharp(survey: Survey, times: np.ndarray, tests: list[int], budget: int, reporter: Reporter) -> list[int]:
    kept, blurred, repeated = choose_sharp(survey, budget)
    for count, what in ((blurred, "blurred"), (repeated, "in which nothing has changed")):
        if count:
            reporter.warn(f"{count} frame{'s' * (count != 1)} {what} left out (ingest.selection=even keeps them)")
    return make_room(kept, tests, times, budget)
