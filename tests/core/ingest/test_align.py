import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.ingest.align import align_clip, apply, fit_line


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.05, 20), shift=st.floats(-3, 3))
def test_a_line_is_found_among_forty_percent_outliers(seed: int, scale: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 5, 200)
    y = scale * x + shift + generator.normal(0, 0.002 * scale, 200)
    y[:80] += generator.uniform(1, 10, 80) * scale
    found = fit_line(x, y, np.random.default_rng(0))
    assert found[0] == pytest.approx(scale, rel=0.01)
    assert found[1] == pytest.approx(shift, abs=0.02 * scale)


def test_without_outliers_it_is_nearly_least_squares() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, 2000)
    y = 2 * x + 1 + generator.normal(0, 0.1, 2000)
    np.testing.assert_allclose(fit_line(x, y, np.random.default_rng(0)), np.polyfit(x, y, 1), atol=0.01)


def test_one_value_for_all_points_fits_a_level() -> None:
    assert fit_line(np.full(9, 3.0), np.arange(9.0), np.random.default_rng(0)) == (0.0, 4.0)


def _clip(kind: str, counts: list[int], noise: float = 0.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(1)
    depths = [generator.uniform(1, 8, count) for count in counts]
    if kind == "relative_disparity":
        values = [(1 / d - 0.05) / 0.4 for d in depths]
    elif kind == "relative_depth":
        values = [(d - 0.5) / 3 for d in depths]
    else:
        values = [d / 2.5 for d in depths]
    return [v * (1 + noise * generator.standard_normal(len(v))) for v in values], depths


@pytest.mark.parametrize(
    ("kind", "line"), [("relative_disparity", (0.4, 0.05)), ("relative_depth", (3, 0.5)), ("metric", (2.5, 0))]
)
def test_each_kind_comes_to_the_cameras_scale(kind: str, line: tuple[float, float]) -> None:
    values, depths = _clip(kind, [60, 50, 3, 0, 70], noise=0.005)
    alignment = align_clip(values, depths, kind, np.random.default_rng(0))
    assert alignment is not None
    assert alignment.residual < 0.02
    assert alignment.points == 183
    for found in alignment.lines:
        np.testing.assert_allclose(found, line, rtol=0.03, atol=0.01)
    np.testing.assert_allclose(apply(values[0], alignment.lines[0], kind), depths[0], rtol=0.1)


def test_a_frame_with_few_points_keeps_to_the_clip() -> None:
    values, depths = _clip("relative_disparity", [80] * 5 + [9])
    depths[5] = depths[5] * 3  # nine wrong points
    alignment = align_clip(values, depths, "relative_disparity", np.random.default_rng(0))
    assert alignment is not None
    assert abs(alignment.lines[5][0] - 0.4) < 0.05, "alone, they would give a third of it"


def test_a_frame_of_many_points_may_have_its_own_line() -> None:
    values, depths = _clip("relative_disparity", [100] * 6)
    values[2] = values[2] * 2
    alignment = align_clip(values, depths, "relative_disparity", np.random.default_rng(0))
    assert alignment is not None
    assert alignment.lines[2][0] == pytest.approx(0.2, rel=0.05)
    assert alignment.lines[3][0] == pytest.approx(0.4, rel=0.02)


def test_too_few_points_give_no_alignment() -> None:
    values, depths = _clip("relative_disparity", [5, 4, 3])
    assert align_clip(values, depths, "relative_disparity", np.random.default_rng(0)) is None


def test_disparity_beyond_infinity_is_infinite() -> None:
    np.testing.assert_array_equal(apply(np.array([1.0, -1.0]), (0.5, 0.0), "relative_disparity"), [2, np.inf])
    np.testing.assert_array_equal(apply(np.array([1.0, -1.0]), (0.5, 0.0), "relative_depth"), [0.5, 0])
