from typing import Any

import numpy as np
import pytest

from dpdy_core.ingest.lens import Lens, read_lens, undistortion


def brown(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Brown's model from its formula (OpenCV's documentation of calibrateCamera), and nerfstudio's further term."""
    k1, k2, p1, p2, k3, k4 = k
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def equidistant(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The fisheye model from its formula (OpenCV's documentation of cv::fisheye)."""
    r = np.maximum(np.hypot(x, y), 1e-12)
    t = np.arctan(r)
    turned = t * (1 + k[0] * t**2 + k[1] * t**4 + k[2] * t**6 + k[3] * t**8)
    return x * turned / r, y * turned / r


@pytest.mark.parametrize(
    ("model", "coefficients", "formula"),
    [
        ("OPENCV", {"k1": -0.2, "k2": 0.05, "p1": 0.002, "p2": -0.003, "k3": 0.01}, brown),
        ("OPENCV", {"k1": 0.1}, brown),
        ("SIMPLE_RADIAL", {"k1": -0.1}, brown),
        ("RADIAL", {"k1": -0.1, "k2": 0.02}, brown),
        ("OPENCV", {"k1": -0.1, "k2": 0.05, "k3": -0.02, "k4": 0.04}, brown),
        ("OPENCV_FISHEYE", {"k1": 0.02, "k2": -0.01}, equidistant),
    ],
)
def test_undistortion_follows_the_formula(model: str, coefficients: dict[str, float], formula: Any) -> None:
    intrinsics = {"fl_x": 120.0, "fl_y": 118.0, "cx": 66.0, "cy": 45.5}
    lens = read_lens({"camera_model": model, **intrinsics, **coefficients}, 128, 96, "frame")
    assert lens is not None
    x, y, valid = undistortion(lens, 128, 96)
    column, row = np.meshgrid(np.arange(128) + 0.5, np.arange(96) + 0.5)  # centres of pixels
    ideal = (column - 66.0) / 120, (row - 45.5) / 118
    bent_x, bent_y = formula(*ideal, lens.distortion if lens.fisheye else (*lens.distortion, lens.eighth))
    assert np.abs(x + 0.5 - (bent_x * 120 + 66.0)).max() < 1e-3  # cv2 counts from the centre of the first pixel
    assert np.abs(y + 0.5 - (bent_y * 118 + 45.5)).max() < 1e-3
    expected = (x >= -0.5) & (x <= 127.5) & (y >= -0.5) & (y <= 95.5)
    assert np.array_equal(valid, expected)


@pytest.mark.parametrize("denominator", [(), (0.05, 0.1, 0.0)])
def test_nothing_is_valid_where_the_radius_folds_back(denominator: tuple[float, ...]) -> None:
    """Along a row through the centre, valid pixels keep their order in the distorted image, and end at the fold."""
    lens = Lens(40.0, 40.0, 64.0, 48.0, (-0.3, 0.02, 0.0, 0.0, 0.0, *denominator))
    x, _, valid = undistortion(lens, 128, 96)
    radius = (np.arange(64, 128) + 0.5 - 64) / 40
    bent = x[48, 64:]
    kept = valid[48, 64:]
    first = int(np.argmin(kept))
    assert not kept[first:].any()
    assert (np.diff(bent[:first]) > 0).all()
    assert bent[first + 1] < bent[first] + 0.05  # it had all but stopped growing
    assert 0.9 < radius[first] < 1.5


def test_a_fisheye_folds_at_an_angle() -> None:
    lens = Lens(20.0, 20.0, 64.0, 48.0, (-0.5, 0.0, 0.0, 0.0), fisheye=True)
    _, _, valid = undistortion(lens, 128, 96)
    limit = np.tan(np.sqrt(1 / 1.5))  # of t (1 - t^2 / 2)
    radius = (np.arange(64, 128) + 0.5 - 64) / 20
    assert np.array_equal(valid[48, 64:], np.hypot(radius, 0.5 / 20) < limit)
