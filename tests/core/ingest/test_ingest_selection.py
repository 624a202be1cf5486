from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.config import IngestConfig
from dpdy_core.ingest.choice import Choice, frames_of_capture
from dpdy_core.ingest.frames import read_image_folder
from dpdy_core.ingest.selection import choose_evenly, choose_sharp, frame_budget, holdout, make_room
from dpdy_core.ingest.survey import Survey
from dpdy_core.progress import Reporter


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=300),
    budget=st.integers(2, 80),
)
def test_choice_is_sorted_unique_within_budget_and_keeps_the_ends(gaps: list[float], budget: int) -> None:
    times = np.cumsum([0.0, *gaps])
    chosen = choose_evenly(times, budget)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= budget
    assert chosen[0] == 0
    assert chosen[-1] == len(times) - 1
    step = times[-1] / (budget - 1)
    for moment in np.linspace(0, times[-1], budget):  # every moment has its nearest frame
        distance = np.abs(times - moment)
        if len(times) > budget:
            assert np.abs(times[chosen] - moment).min() == pytest.approx(distance.min(), abs=1e-9 + 1e-9 * step)


@settings(deadline=None)
@given(count=st.integers(2, 400), budget=st.integers(2, 400))
def test_choice_of_a_steady_clip_is_even(count: int, budget: int) -> None:
    chosen = choose_evenly(range(count), budget)
    assert len(chosen) == min(count, budget)
    gaps = np.diff(chosen)
    assert gaps.max() - gaps.min() <= 1


@settings(deadline=None)
@given(available=st.integers(2, 2000), max_frames=st.integers(2, 600), every=st.integers(2, 20) | st.just(0))
def test_budget_fills_the_training_frames(available: int, max_frames: int, every: int) -> None:
    budget = frame_budget(available, max_frames, every)
    tests = holdout(budget, every)
    assert budget <= available
    assert budget - len(tests) <= max_frames
    if budget < available:
        assert budget - len(tests) == max_frames
    assert not {0, budget - 1} & set(tests)
    assert (budget >= 24 and every > 0) or not tests


def _survey(sharpness: np.ndarray, motion: np.ndarray, times: np.ndarray | None = None) -> Survey:
    count = len(sharpness)
    return Survey(np.arange(count), np.arange(count, dtype=float) if times is None else times, sharpness, motion)


@settings(deadline=None)
@given(count=st.integers(2, 300), budget=st.integers(2, 80), seed=st.integers(0, 1000))
def test_sharp_choice_leaves_no_gap_above_twice_the_even_spacing(count: int, budget: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    motion = np.where(dice.random(count) < 0.3, 0, dice.exponential(0.01, count))
    chosen, _, _ = choose_sharp(_survey(dice.exponential(1, count), motion), budget)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= budget
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    spacing = (count - 1) / (min(count, budget) - 1)
    assert np.diff(chosen).max() <= 2 * spacing + 1e-6


def test_frames_blurred_on_purpose_are_left_out_or_replaced() -> None:
    dice = np.random.default_rng(0)
    sharpness, motion = dice.uniform(90, 110, 60), np.full(60, 0.01)
    blurred = [7, 20, 33, 46]
    sharpness[blurred] = 20
    chosen, left_out, repeated = choose_sharp(_survey(sharpness, motion), 60)
    assert chosen == [i for i in range(60) if i not in blurred]
    assert (left_out, repeated) == (4, 0)
    chosen, _, _ = choose_sharp(_survey(sharpness, motion), 15)
    assert not set(chosen) & set(blurred)
    assert len(chosen) == 15, "a sharper neighbour takes the place"


def test_a_long_blur_keeps_every_second_frame() -> None:
    sharpness = np.full(30, 100.0)
    sharpness[10:12] = 10
    assert len(choose_sharp(_survey(sharpness, np.full(30, 0.01)), 30)[0]) == 29


def test_a_clip_that_gets_darker_loses_nothing() -> None:
    sharpness = np.geomspace(1000, 1, 60)
    assert choose_sharp(_survey(sharpness, np.full(60, 0.01)), 60) == (list(range(60)), 0, 0)


def test_repeated_frames_are_thinned() -> None:
    motion = np.tile([0.01, 0.0], 20)  # 60 frames a second made of 30
    chosen, blurred, repeated = choose_sharp(_survey(np.full(40, 5.0), motion), 40)
    assert (blurred, repeated) == (0, 19)
    assert chosen == [*range(0, 40, 2), 39]


def test_fast_parts_get_more_frames() -> None:
    motion = np.r_[np.full(100, 0.001), np.full(100, 0.01)]
    chosen, _, _ = choose_sharp(_survey(np.ones(200), motion), 40)
    assert sum(i >= 100 for i in chosen) > 1.4 * sum(i < 100 for i in chosen)


def test_a_test_frame_takes_the_place_of_the_frame_nearest_to_it() -> None:
    times = np.arange(100) / 30
    chosen, tests = list(range(0, 100, 3)), [10, 50, 91]
    assert make_room(chosen, tests, times, budget=34) == [i for i in chosen if i not in (9, 51, 90)]
    assert make_room(chosen, tests, times, budget=36) == [i for i in chosen if i != 9]
    assert make_room(chosen, tests, times, budget=37) == chosen


def test_what_held_out_frames_show_decides_nothing(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for i in range(80):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), dice.integers(0, 256 - 2 * (i % 7), (24, 32, 3)))
    source = read_image_folder(tmp_path)

    def choose() -> Choice:
        return frames_of_capture(source, source.training_frames(), IngestConfig(max_frames=28), Reporter())

    choice = choose()
    assert len(choice.train) == 28
    assert len(choice.test) == 4
    assert not set(choice.train) & set(choice.test)
    for i in choice.test:
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), np.zeros((24, 32, 3)))  # as blurred as can be
    assert choose() == choice
