"""Depth of static points from several frames: which frames, and what they agree on."""

import math

import numpy as np
import pytest

from dpdy_core.ingest.triangulate import AGREEMENT, agreed, offsets


def test_longer_clips_are_matched_over_longer_gaps() -> None:
    near = [1, 2, 4, 8]
    for count, further in ((2, []), (30, []), (95, []), (96, [16]), (191, [16]), (192, [16, 32]), (2000, [16, 32])):
        gaps = near + further
        assert offsets(count) == [-gap for gap in reversed(gaps)] + gaps


def slowly_agreed(estimates: np.ndarray, angles: np.ndarray) -> list[float]:
    """Point by point, from the definition."""
    result = []
    for own, angle in zip(estimates.T, angles.T, strict=True):
        known = sorted((float(e), float(a) ** 2) for e, a in zip(own, angle, strict=True) if a > 0)
        total, reached, median = sum(w for _, w in known), 0.0, math.nan
        for value, weight in known:
            reached += weight
            if reached >= 0.5 * total:
                median = value
                break
        near = [(e, w) for e, w in known if abs(e - median) < AGREEMENT * median]
        mean = sum(e * w for e, w in near) / sum(w for _, w in near) if len(near) >= 2 else math.nan
        result.append(mean)
    return result


def test_what_frames_agree_on_is_as_in_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    estimates = 2 + 0.12 * rng.standard_normal((8, 300))
    angles = rng.uniform(0.6, 6, (8, 300)) * (rng.random((8, 300)) > 0.4)
    angles[:, 0] = 0
    angles[:, 1] = [1, *[0] * 7]
    estimates[angles == 0] = np.nan
    got, want = agreed(estimates, angles), np.array(slowly_agreed(estimates, angles))
    assert np.isnan(got[:2]).all(), "nothing, and one alone, agree on nothing"
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_wide_angles_outweigh_many_narrow_ones() -> None:
    """Six neighbours a degree away that a pixel's error moves by 10 %, and two that see the point from 8 and 9."""
    estimates = np.array([[2.2], [2.21], [2.19], [2.2], [2.2], [2.22], [2.0], [2.01]])
    angles = np.array([[1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [8.0], [9.0]])
    assert agreed(estimates, angles)[0] == pytest.approx(2.006, abs=0.001)
