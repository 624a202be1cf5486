"""Looks at a source's frames and chooses those that are kept. Torch-free."""

import cv2
import numpy as np

from dpdy_core.config import IngestConfig
from dpdy_core.ingest.frames import SourceCapture, SourceFrame
from dpdy_core.ingest.selection import choose_evenly, choose_sharp, frame_budget
from dpdy_core.ingest.size import fitted_size
from dpdy_core.ingest.survey import SKEW, SURVEY_SIZE, Survey, candidates, look, skew_of_rolling_shutter
from dpdy_core.ingest.video import Video, read_frames
from dpdy_core.progress import Reporter


def frames_of_video(video: Video, settings: IngestConfig, reporter: Reporter) -> tuple[list[int], int]:
    """Rising numbers of the frames to keep, and how many were looked at. One decoded frame is held at a time."""
    budget = frame_budget(len(video.times), settings.max_frames, settings.holdout_every)
    if settings.selection == "even":
        return choose_evenly(video.times, budget), 0
    index = candidates(len(video.times), budget)
    images = read_frames(video, index.tolist(), fitted_size(video.width, video.height, SURVEY_SIZE))
    total = len(index) + budget
    survey = look((rgb for _, rgb in images), index, video.times[index], lambda done: reporter.step(done, total))
    skew = skew_of_rolling_shutter(survey, video.duration)
    if skew > SKEW:
        reporter.warn(
            f"the picture moves fast (by {skew:.1%} of its longer side in 20 ms): a camera with a rolling shutter, as "
            "phones have, bends it, and the camera poses suffer; film more slowly"
        )
    return _chosen(survey, budget, reporter), len(index)


def frames_of_capture(
    source: SourceCapture, training: list[SourceFrame], settings: IngestConfig, reporter: Reporter
) -> tuple[list[int], int]:
    """Rising positions to keep in `training`, the frames of a capture without splits, and how many were looked at."""
    budget = frame_budget(len(training), settings.max_frames, settings.holdout_every)
    if settings.selection == "even":
        return choose_evenly(range(len(training)), budget), 0
    index = candidates(len(training), budget)
    size = fitted_size(source.width, source.height, SURVEY_SIZE)
    images = (cv2.resize(source.picture(training[i]), size, interpolation=cv2.INTER_AREA) for i in index)
    total = len(index) + budget
    survey = look(images, index, np.array(index, float), lambda done: reporter.step(done, total))
    return _chosen(survey, budget, reporter), len(index)


def _chosen(survey: Survey, budget: int, reporter: Reporter) -> list[int]:
    kept, blurred, repeated = choose_sharp(survey, budget)
    for count, what in ((blurred, "blurred"), (repeated, "in which nothing has changed")):
        if count:
            reporter.warn(f"{count} frame{'s' * (count != 1)} {what} left out (ingest.selection=even keeps them)")
    return kept
