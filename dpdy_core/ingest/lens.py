"""Intrinsics with lens distortion, read from nerfstudio keys and removed at the door. Torch-free."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.polynomial import Polynomial

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
    distortion: tuple[
        float, ...
    ] = ()  # as OpenCV: k1 k2 p1 p2 k3 [k4 k5 k6 below], or fisheye k1 k2 k3 k4; empty = none
    fisheye: bool = False
    eighth: float = 0.0  # nerfstudio's k4, on the eighth power of the radius, which OpenCV's model lacks

    @property
    def is_distorted(self) -> bool:
        return self.fisheye or any(self.distortion) or self.eighth != 0

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
    focal_and_centre = (fl_x, fl_y, get("cx", width / 2), get("cy", height / 2))
    model = str(values.get("camera_model") or "OPENCV").upper()
    if model == _FISHEYE:
        fisheye = tuple(get(key, 0.0) for key in ("k1", "k2", "k3", "k4"))
        return checked_lens(Lens(*focal_and_centre, fisheye, fisheye=True), width, height, where)
    if model not in _BROWN:
        raise unsupported(model, where)
    distortion = tuple(get(key, 0.0) for key in ("k1", "k2", "p1", "p2", "k3"))
    lens = Lens(*focal_and_centre, distortion, eighth=get("k4", 0.0))
    if "PINHOLE" in model and lens.is_distorted:
        raise BadInput(
            f"{where} says camera_model {model} but gives distortion coefficients",
            "say OPENCV if the images are distorted, or remove k1 k2 k3 k4 p1 p2",
        )
    return checked_lens(lens, width, height, where)


def unsupported(model: str, where: str) -> BadInput:
    """The refusal of a camera model."""
    return BadInput(
        f"{where} has the camera model {model}, which is not supported",
        "make perspective images first (for example with colmap image_undistorter)",
    )


def checked_lens(lens: Lens, width: int, height: int, where: str) -> Lens:
    """`lens`, or BadInput if its numbers cannot be those of an image of this size."""
    if not all(map(math.isfinite, (lens.fl_x, lens.fl_y, lens.cx, lens.cy, lens.eighth, *lens.distortion))):
        raise BadInput(f"the intrinsics of {where} are not finite numbers", "correct them")
    if lens.fl_x <= 0 or lens.fl_y <= 0:
        raise BadInput(
            f"the focal length of {where} is negative or zero ({lens.fl_x:g}, {lens.fl_y:g})",
            "give the focal lengths in pixels",
        )
    if not (-width < lens.cx < 2 * width and -height < lens.cy < 2 * height):
        raise BadInput(
            f"the principal point ({lens.cx:g}, {lens.cy:g}) of {where} lies far outside its {width}x{height} image",
            "give it in pixels of the image itself",
        )
    return lens


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
    across = (np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5 - lens.cx)) / np.float32(lens.fl_x)
    down = (np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - lens.cy)) / np.float32(lens.fl_y)
    r2 = across**2 + down**2
    if lens.eighth:
        x += across * r2**4 * (lens.eighth * lens.fl_x)
        y += down * r2**4 * (lens.eighth * lens.fl_y)
    valid = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5) & (r2 < _fold(lens))
    return x, y, valid


def _fold(lens: Lens) -> float:
    """The squared radius at which the radial model stops growing: beyond, it folds back and repeats the picture.

    The least s = r^2 > 0 where d/dr [r P(s) / Q(s)] or Q is 0, hence a root of P Q + 2 s (P' Q - P Q') or of Q. The
    fisheye model is a polynomial of the angle: s = tan(angle)^2, and its angles end at 90 degrees.
    """
    if lens.fisheye:
        squared_angle = _least_root(Polynomial([1, *(k * (3 + 2 * i) for i, k in enumerate(lens.distortion))]))
        return math.tan(math.sqrt(squared_angle)) ** 2 if squared_angle < (math.pi / 2) ** 2 else math.inf
    k1, k2, _, _, k3, *below = [*lens.distortion, *(5 - len(lens.distortion)) * [0.0]]
    over, under = Polynomial([1, k1, k2, k3, lens.eighth]), Polynomial([1, *below])
    growth = over * under + Polynomial([0, 2]) * (over.deriv() * under - over * under.deriv())
    return min(_least_root(growth), _least_root(under))


def _least_root(polynomial: Polynomial) -> float:
    """The least positive real root, or infinity."""
    roots = polynomial.trim().roots()
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1, np.abs(roots))) & (roots.real > 0)]
    return float(real.min(initial=math.inf))
