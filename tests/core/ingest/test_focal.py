import numpy as np
import pytest

from dpdy_core.ingest.focal import PHONE, TAGGED_DEVIATION, FocalPrior, prior_of, weighed

PRIOR = FocalPrior(0.8, 0.2)


def test_equally_sure_sides_meet_at_the_geometric_mean() -> None:
    focal, deviation = weighed(1.0, 0.2, PRIOR)
    assert focal == pytest.approx(np.sqrt(0.8))
    assert deviation == pytest.approx(0.2 / np.sqrt(2))


def test_a_sure_measurement_hardly_heeds_what_is_expected() -> None:
    focal, deviation = weighed(1.0, 0.004, PRIOR)
    assert focal == pytest.approx(1.0, abs=2e-4)
    assert deviation == pytest.approx(0.004, rel=1e-3)


def test_a_camera_of_another_kind_is_measured_alone() -> None:
    """A telephoto lens is no phone with a bad measurement."""
    assert weighed(2.0, 0.1, PRIOR) == (2.0, 0.1)
    assert weighed(0.4, 0.1, PRIOR) == (0.4, 0.1)


def test_tags_of_the_file_are_expected_more_surely_than_any_phone() -> None:
    assert prior_of(None) == PHONE
    assert prior_of(1.4) == FocalPrior(1.4, TAGGED_DEVIATION)
    assert PHONE.deviation > TAGGED_DEVIATION
