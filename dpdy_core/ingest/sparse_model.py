"""What structure from motion is asked and what it answers, without COLMAP itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Attempt:
    """Settings of one try at a reconstruction."""

    features: int
    peak_threshold: float
    masked: bool
    overlap: int | None  # frames that each frame is matched with; None = all pairs
    first_angle: float  # least angle in degrees between the first two views
    point_angle: float  # least angle in degrees at a point
    min_inliers: int
    focal_factors: tuple[float, ...]  # first guesses of the focal length over the longer side; the best model wins


# With little parallax the focal length that bundle adjustment ends at depends on the first guess: 0.85 (61 degrees) is
# that of a phone; COLMAP's own 1.2 was seen to end 13 % off where 0.85 ends 0.5 % off.
FIRST = Attempt(
    features=1500,
    peak_threshold=0.004,
    masked=True,
    overlap=None,
    first_angle=4.0,
    point_angle=1.0,
    min_inliers=30,
    focal_factors=(0.85,),
)
SECOND = Attempt(
    features=4000,
    peak_threshold=0.002,
    masked=True,
    overlap=None,
    first_angle=2.0,
    point_angle=0.4,
    min_inliers=15,
    focal_factors=(0.85, 1.5),
)


@dataclass(frozen=True)
class Intrinsics:
    """Focal lengths and principal point in pixels of the matched images."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class SparseModel:
    """A finished reconstruction. Images are named as in the workspace."""

    w2c: dict[str, np.ndarray]  # (3, 4) each, of the registered images
    intrinsics: Intrinsics
    xyz: np.ndarray  # (P, 3)
    observations: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> point indices (K,), pixels (K, 2)
    reprojection_error: float  # mean, pixels
    colmap: Any  # the pycolmap.Reconstruction, and
    database: Path  # its features and matches, to place further images against it


@dataclass(frozen=True)
class Evidence:
    """What matching found, to explain a failure."""

    features: float  # median per image
    verified: int  # image pairs with a geometry
    pairs: int  # image pairs that were tried
    rigid_share: float  # share of the verified pairs that a homography explains: no parallax
