"""What structure from motion is asked and what it answers, without COLMAP itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.ingest.focal import PHONE


@dataclass(frozen=True)
class Attempt:
    """Settings of one try at a reconstruction."""

    name: str  # in words, for the log
    features: int
    peak_threshold: float
    masked: bool
    overlap: int | None  # frames that each frame is matched with; None = all pairs
    first_angle: float  # least angle in degrees between the first two views
    point_angle: float  # least angle in degrees at a point
    min_inliers: int
    focal_factors: tuple[float, ...]  # first guesses of the focal length over the longer side; the best model wins
    affine: bool = False  # affine shape and domain-size pooling of the features: slow, for weak and slanted texture

    @property
    def matches(self) -> str:
        """A file name for what does not depend on the mapping: attempts that share it share features and matches."""
        return f"{self.features}-{self.overlap}-{self.affine}-{self.masked}.db"


# With little parallax the focal length that bundle adjustment ends at depends on the first guess: 0.85 (61 degrees) is
# that of a phone; COLMAP's own 1.2 was seen to end 13 % off where 0.85 ends 0.5 % off.
FOCAL = PHONE.share
FOCAL_GUESSES = (FOCAL, 1.5)
ORDERED_FRAMES = 60  # longer clips are matched along time first, not all pairs
ALL_PAIRS_FRAMES = 150  # longer clips are never matched in all pairs
OVERLAP = 12


def attempts(frames: int, hint: float | None, masked: bool) -> tuple[Attempt, ...]:
    """The tries at a clip of so many frames, in order. `hint` is the focal length over the longer side that the file's
    tags tell; `masked` says whether motion masks leave enough of the picture, for all but the first try.
    """
    guesses = FOCAL_GUESSES if hint is None else (hint, FOCAL)
    first = Attempt(
        name="the usual settings",
        features=1500,
        peak_threshold=0.004,
        masked=True,
        overlap=None if frames <= ORDERED_FRAMES else OVERLAP,
        first_angle=4.0,
        point_angle=1.0,
        min_inliers=30,
        focal_factors=guesses[:1],
    )
    all_pairs = frames <= ALL_PAIRS_FRAMES
    more = replace(
        first,
        name=f"more and weaker features, {'all pairs' if all_pairs else 'pairs farther apart'}, smaller angles",
        features=4000,
        peak_threshold=0.002,
        masked=masked,
        overlap=None if all_pairs else 3 * OVERLAP,
        first_angle=2.0,
        point_angle=0.4,
        min_inliers=15,
        focal_factors=guesses,
    )
    slight = replace(more, name="very small angles", first_angle=0.5, point_angle=0.1, focal_factors=guesses[:1])
    affine = replace(more, name="affine features pooled over sizes", affine=True, focal_factors=guesses[:1])
    return first, more, slight, affine


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
    focal_deviation: float | None = None  # standard deviation over the focal length; None: given, or it cannot be told
    focal_expected: bool = False  # whether what ordinary cameras have counted in the focal length

    def parallax(self) -> float:
        """Degrees between the outermost cameras as seen from a point at the median depth."""
        centres = np.array([-pose[:, :3].T @ pose[:, 3] for pose in self.w2c.values()])
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1).max()
        depths = [self.xyz[i] @ self.w2c[n][2, :3] + self.w2c[n][2, 3] for n, (i, _) in self.observations.items()]
        return float(np.degrees(2 * np.arctan2(apart / 2, np.median(np.concatenate(depths)))))


@dataclass(frozen=True)
class Evidence:
    """What matching found, to explain a failure."""

    features: float  # median per image
    verified: int  # image pairs with a geometry
    pairs: int  # image pairs that were tried
    rigid_share: float  # share of the verified pairs that a homography explains: no parallax
