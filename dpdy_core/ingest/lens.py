"""Intrinsics with lens distortion, read from nerfstudio keys and removed at the door. Torch-free."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.document import number

_BROWN = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_FISHEYE = "OPENCV_FISHEYE"


@dataclass(frozen=True)
class Lens:
    """One camera's intrinsics in pixels; the centre of the top left pixel is at (0.5, 0.5)."""

    fl_x: float
    fl_y: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()  # k1 k2 p1 p2 k3 (Brown) or k1 k2 k3 k4 (fisheye); empty = none
    fisheye: bool = False

    @property
    def is_distorted(self) -> bool:
        return self.fisheye or any(self.distortion)

    def pinhole(self, scale_x: float, scale_y: float) -> dict[str, float]:
        """`fl_x fl_y cx cy` of the undistorted image scaled by these factors."""
        return {
            "fl_x": self.fl_x * scale_x,
            "fl_y": self.fl_y * scale_y,
            "cx": self.cx * scale_x,
            "cy": self.cy * scale_y,
        }


def read_lens(values: Mapping[str, Any], width: int, height: int, where: str) -> Lens | None:
    """The lens in nerfstudio's keys (`values`: the frame's over the document's), or None if no focal length is given.

    Raises BadInput for models other than pinhole, OPENCV (Brown) and OPENCV_FISHEYE, and for impossible numbers.
    """

    def get(key: str, default: float) -> float:
        return default if values.get(key) is None else number(values[key], key, where)

    fl_x = get("fl_x", _focal_of_angle(get("camera_angle_x", 0.0), width, where))
    fl_y = get("fl_y", _focal_of_angle(get("camera_angle_y", 0.0), height, where))
    fl_x, fl_y = fl_x or fl_y, fl_y or fl_x
    if fl_x == 0:
        return None
    if fl_x < 0 or fl_y < 0:
        raise BadInput(f"the focal length of {where} is negative ({fl_x:g}, {fl_y:g})", "fl_x and fl_y are in pixels")
    cx, cy = get("cx", width / 2), get("cy", height / 2)
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise BadInput(
            f"the principal point ({cx:g}, {cy:g}) of {where} lies far outside its {width}x{height} image",
            "cx and cy are in pixels of the image that file_path names",
        )
    model = str(values.get("camera_model") or "OPENCV").upper()
    if model == _FISHEYE:
        return Lens(fl_x, fl_y, cx, cy, tuple(get(key, 0.0) for key in ("k1", "k2", "k3", "k4")), fisheye=True)
    if model not in _BROWN or get("k4", 0.0) != 0:
        reason = "a fourth radial coefficient (k4)" if model in _BROWN else f"the camera model {model}"
        raise BadInput(
            f"{where} has {reason}, which is not supported",
            "undistort the images first (for example with ns-process-data or colmap image_undistorter)",
        )
    distortion = tuple(get(key, 0.0) for key in ("k1", "k2", "p1", "p2", "k3"))
    if "PINHOLE" in model and any(distortion):
        raise BadInput(
            f"{where} says camera_model {model} but gives distortion coefficients",
            "say OPENCV if the images are distorted, or remove k1 k2 k3 p1 p2",
        )
    return Lens(fl_x, fl_y, cx, cy, distortion)


def _focal_of_angle(angle: float, side: int, where: str) -> float:
    if angle == 0:
        return 0.0
    if not 0 < angle < math.pi:
        raise BadInput(f"the field of view of {where} is {angle:g}", "camera_angle_x is in radians, below pi")
    return side / 2 / math.tan(angle / 2)


@lru_cache(maxsize=2)
def undistortion(lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel of the pinhole image lies in the distorted one: x and y (H, W) float32, valid (H, W) bool.

    The pinhole keeps size, focal length and principal point, so the middle keeps its resolution; pixels that look
    beyond the distorted image are not valid. x and y count from the centre of the top left pixel, as cv2.remap does.
    """
    matrix = np.array([[lens.fl_x, 0, lens.cx - 0.5], [0, lens.fl_y, lens.cy - 0.5], [0, 0, 1]])
    distortion = np.array(lens.distortion)
    rectify = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
    x, y = rectify(matrix, distortion, np.eye(3), matrix, (width, height), cv2.CV_32FC1)
    valid = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    if not lens.fisheye:
        valid &= _before_the_fold(lens, width, height)
    return x, y, valid


def _before_the_fold(lens: Lens, width: int, height: int) -> np.ndarray:
    """(H, W) bool, where the radial polynomial still grows: beyond, it folds back and repeats the picture."""
    k1, k2, _, _, k3 = lens.distortion
    column = (np.arange(width) + 0.5 - lens.cx) / lens.fl_x
    row = (np.arange(height) + 0.5 - lens.cy) / lens.fl_y
    r2 = column[None, :] ** 2 + row[:, None] ** 2
    growing: np.ndarray = 1 + 3 * k1 * r2 + 5 * k2 * r2**2 + 7 * k3 * r2**3 > 0
    return growing
