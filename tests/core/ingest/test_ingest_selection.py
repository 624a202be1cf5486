import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.ingest.selection import choose_evenly, frame_budget, holdout


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
