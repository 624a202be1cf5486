from typing import Any

import numpy as np
import pytest

from dpdy_core.ingest.lens import read_lens, undistortion


def brown(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Brown's model from its formula (OpenCV's documentation of calibrateCamera)."""
    k1, k2, p1, p2, k3 = k
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
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
    bent_x, bent_y = formula(*ideal, lens.distortion)
    assert np.abs(x + 0.5 - (bent_x * 120 + 66.0)).max() < 1e-3  # cv2 counts from the centre of the first pixel
    assert np.abs(y + 0.5 - (bent_y * 118 + 45.5)).max() < 1e-3
    expected = (x >= -0.5) & (x <= 127.5) & (y >= -0.5) & (y <= 95.5)
    assert np.array_equal(valid, expected)
