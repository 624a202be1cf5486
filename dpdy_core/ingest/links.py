"""Which frames see the same still things: sparse features matched between frames, and what the matches tell of the
camera. What structure from motion will meet, at a hundredth of its cost. Torch-free."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from dpdy_core.ingest.epipolar import fit_fundamental, fit_homography, sampson_distance, transfer

FEATURES = 800
CONTRAST = (
    0.012  # OpenCV divides it by its three layers: 0.004, the peak threshold of the first attempt in sparse_model
)
RATIO = 0.8  # Lowe (IJCV 2004)
TOLERANCE, LEAST_TOLERANCE = 1.5 / 480, 0.4  # share of the longer side; pixels, what features are accurate to
MIN_INLIERS = 20  # pictures of different things reach 16 by chance
MIN_INLIER_SHARE = 0.25  # COLMAP's min_inlier_ratio
TRIALS = 500  # a pair that needs more has too little in common
GAPS = (1, 2, 4, 8)

Features = tuple[np.ndarray, np.ndarray]  # pixels (K, 2), descriptors (K, 128)


@dataclass(frozen=True)
class Link:
    """What two frames have in common. Lengths are pixels of the frames given."""

    first: int
    second: int
    inliers: int
    moved: float  # median length by which what is common moved in the picture
    parallax: float  # share of what is common that one homography leaves off: hardly any if the camera only turns
    gain: float  # median of brightness in the second over the first, on the same things


def find_features(grey: np.ndarray) -> Features:
    """SIFT features of an (H, W) uint8 image."""
    keypoints, descriptors = cv2.SIFT.create(FEATURES, contrastThreshold=CONTRAST).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return np.array([k.pt for k in keypoints]), descriptors


def link_frames(
    greys: list[np.ndarray], features: Mapping[int, Features], pairs: Iterable[tuple[int, int]]
) -> list[Link]:
    """The links among `pairs` of positions; a pair without enough in common is left out."""
    found = []
    smooth = [cv2.GaussianBlur(grey, (0, 0), 2) for grey in greys]
    for first, second in pairs:
        link = _link(first, second, features, smooth)
        if link is not None:
            found.append(link)
    return found


def pairs_in_order(count: int) -> list[tuple[int, int]]:
    """Pairs of `count` frames in a row that are GAPS apart."""
    return [(i, i + gap) for gap in GAPS for i in range(count - gap)]


def groups(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The `count` frames parted into those that hang together by `links`, the largest group first."""
    leader = list(range(count))

    def lead(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    for first, second in links:
        leader[lead(second)] = lead(first)
    members: dict[int, list[int]] = {}
    for i in range(count):
        members.setdefault(lead(i), []).append(i)
    return sorted(members.values(), key=len, reverse=True)


def _link(first: int, second: int, features: Mapping[int, Features], smooth: list[np.ndarray]) -> Link | None:
    a, b = _matches(features[first], features[second])
    if len(a) < MIN_INLIERS:
        return None
    tolerance = max(TOLERANCE * max(smooth[first].shape), LEAST_TOLERANCE)
    homography, fundamental = (fit(a, b, tolerance, TRIALS) for fit in (fit_homography, fit_fundamental))
    flat = np.zeros(len(a), bool)
    if homography is not None:
        flat = np.linalg.norm(transfer(homography, a) - b, axis=-1) < tolerance
    rigid = flat if fundamental is None else sampson_distance(fundamental, a, b) < tolerance
    parallax = float((~flat[rigid]).mean()) if rigid.any() else 0.0
    inliers = flat | rigid
    count = int(inliers.sum())
    if count < MIN_INLIERS or count < MIN_INLIER_SHARE * len(a):
        return None
    a, b = a[inliers], b[inliers]
    ratio = _values(smooth[second], b) / np.maximum(_values(smooth[first], a), 1)
    moved = float(np.median(np.linalg.norm(b - a, axis=-1)))
    return Link(first, second, count, moved, parallax, float(np.median(ratio)))


def _matches(first: Features, second: Features) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (K, 2) in either frame of features that prefer each other, clearly."""
    if min(len(first[0]), len(second[0])) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    distance = np.maximum(
        (first[1] ** 2).sum(1)[:, None] + (second[1] ** 2).sum(1)[None] - 2 * first[1] @ second[1].T, 0
    )
    nearest = distance.argmin(1)
    two = np.partition(distance, 1, axis=1)[:, :2]
    chosen = (two[:, 0] < RATIO**2 * two[:, 1]) & (distance.argmin(0)[nearest] == np.arange(len(distance)))
    return first[0][chosen], second[0][nearest[chosen]]


def _values(grey: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    x, y = np.rint(pixels).astype(int).T
    values: np.ndarray = grey[y.clip(0, grey.shape[0] - 1), x.clip(0, grey.shape[1] - 1)].astype(np.float64)
    return values
