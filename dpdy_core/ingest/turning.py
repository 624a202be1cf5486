"""Cameras that only turn: rotations and one focal length from point pairs, by bundle adjustment without points.

A pixel x of frame i is seen in frame j at K R_j R_i^T K^-1 x (Hartley & Zisserman, section 8.4.2). Torch-free.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ITERATIONS = 20
CAUCHY = 2.0  # pixels: matches farther off count ever less
FOCAL_SPREAD = 0.3  # of log f, standard deviation of the first guess, per pixel of residual
FITS = 0.7  # pixels: the median residual of a camera that only turns is below
NEAR = 2.0  # pixels within which
NEAR_SHARE = 0.85  # this share of the point pairs lies
MAX_POINTS = 150  # of a pair of frames that are used


@dataclass(frozen=True)
class Pair:
    """Points that two frames share: pixels (K, 2) each, from the principal point."""

    first: int
    second: int
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Turning:
    """Rotations of the frames that could be placed, the first of them the identity."""

    rotations: dict[int, np.ndarray]  # (3, 3) world to camera
    focal: float  # pixels
    residual: float  # pixels, median
    near_share: float  # of the point pairs
    angle: float  # degrees between the two directions that are farthest apart

    @property
    def fits(self) -> bool:
        """Whether turning explains what was seen."""
        return self.residual < FITS and self.near_share > NEAR_SHARE


def solve_turning(
    pairs: list[Pair], focal_guesses: tuple[float, ...], focal_is_known: bool, check: Callable[[], None]
) -> Turning | None:
    """Rotations of the largest set of frames that `pairs` connect; None where there are none.

    Each guess of the focal length (pixels) is refined unless it is known; the solution with the least residual wins.
    """
    linked = _largest_set([_thinned(pair) for pair in pairs if len(pair.x) >= 8])
    best: Turning | None = None
    for guess in focal_guesses:
        if not linked:
            return None
        rotations = _chained(linked, guess)
        found = _adjusted(linked, rotations, guess, focal_is_known, check)
        if best is None or found.residual < best.residual:
            best = found
    return best


def place_turning(pairs: list[Pair], rotations: dict[int, np.ndarray], focal: float, query: int) -> np.ndarray | None:
    """(3, 3) rotation of frame `query` against the `rotations` already found."""
    bearings = []
    for pair in pairs:
        for mine, other, x, y in ((pair.first, pair.second, pair.x, pair.y), (pair.second, pair.first, pair.y, pair.x)):
            if mine == query and other in rotations:
                bearings.append((_bearings(x, focal), _bearings(y, focal) @ rotations[other]))
    if not bearings:
        return None
    here, world = (np.concatenate(part) for part in zip(*bearings, strict=True))
    keep = np.ones(len(here), bool)
    for _ in range(4):
        if keep.sum() < 12:
            return None
        rotation = _kabsch(world[keep], here[keep])
        off = np.linalg.norm(world @ rotation.T - here, axis=-1) * focal
        keep = off < 2 * NEAR
    return rotation


def _thinned(pair: Pair) -> Pair:
    step = max(1, len(pair.x) // MAX_POINTS)
    return Pair(pair.first, pair.second, pair.x[::step], pair.y[::step])


def _largest_set(pairs: list[Pair]) -> list[Pair]:
    """The pairs of the largest connected set of frames."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        parent.setdefault(i, i)
        while parent[i] != i:
            i = parent[i]
        return i

    for pair in pairs:
        parent[root(pair.first)] = root(pair.second)
    roots = [root(i) for i in sorted(parent)]
    largest = max(sorted(set(roots)), key=roots.count, default=None)
    return [pair for pair in pairs if root(pair.first) == largest]


def _bearings(pixels: np.ndarray, focal: float) -> np.ndarray:
    """(K, 3) unit rays."""
    rays = np.column_stack([pixels / focal, np.ones(len(pixels))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _kabsch(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) rotation R with R a = b in the least-squares sense, for (K, 3) each."""
    u, _, vt = np.linalg.svd(b.T @ a)
    rotation: np.ndarray = u @ np.diag([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)]) @ vt
    return rotation


def _chained(pairs: list[Pair], focal: float) -> dict[int, np.ndarray]:
    """First rotations along a tree of the pairs with most points."""
    rotations = {min(pair.first for pair in pairs): np.eye(3)}
    waiting = sorted(pairs, key=lambda p: -len(p.x))
    while True:
        usable = (p for p in waiting if (p.first in rotations) != (p.second in rotations))
        pair = next(usable, None)
        if pair is None:
            return rotations
        turn = _kabsch(_bearings(pair.x, focal), _bearings(pair.y, focal))
        if pair.first in rotations:
            rotations[pair.second] = turn @ rotations[pair.first]
        else:
            rotations[pair.first] = turn.T @ rotations[pair.second]


def _adjusted(
    pairs: list[Pair], rotations: dict[int, np.ndarray], guess: float, focal_is_known: bool, check: Callable[[], None]
) -> Turning:
    """Levenberg-Marquardt on all rotations but the first, and log f, with the weights of a Cauchy loss."""
    order = sorted(rotations)
    column = {frame: 3 * i - 3 for i, frame in enumerate(order)}  # the first frame has none
    size = 3 * len(order) - 2
    focal, damping = guess, 1e-3
    current = _cost(pairs, rotations, focal, guess)
    for _ in range(ITERATIONS):
        check()
        normal, gradient = np.zeros((size, size)), np.zeros(size)
        for pair in pairs:
            residual, by_first, by_second, by_focal = _linearised(pair, rotations, focal)
            weight = 1 / (1 + (residual**2).sum(1) / CAUCHY**2)
            blocks = [(size - 1, by_focal[:, :, None])]
            blocks += [(column[pair.first], by_first)] * (pair.first != order[0])
            blocks += [(column[pair.second], by_second)] * (pair.second != order[0])
            for at, a in blocks:
                gradient[at : at + a.shape[2]] += np.einsum("k,kri,kr->i", weight, a, residual)
                for to, b in blocks:
                    normal[at : at + a.shape[2], to : to + b.shape[2]] += np.einsum(
                        "k,kri,krj->ij", weight, a, b, optimize=True
                    )
        normal[-1, -1] += 1 / FOCAL_SPREAD**2
        gradient[-1] += np.log(focal / guess) / FOCAL_SPREAD**2
        if focal_is_known:
            normal[-1, :], normal[:, -1], normal[-1, -1], gradient[-1] = 0, 0, 1, 0
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
        moved = {f: _turn(step[column[f] : column[f] + 3]) @ r if f != order[0] else r for f, r in rotations.items()}
        longer = focal * float(np.exp(np.clip(step[-1], -0.5, 0.5)))
        cost = _cost(pairs, moved, longer, guess)
        if cost >= current:
            damping *= 10
            continue
        converged = current - cost < 1e-6 * current
        rotations, focal, current, damping = moved, longer, cost, damping / 5
        if converged:
            break
    off = np.concatenate([np.linalg.norm(_residual(pair, rotations, focal), axis=1) for pair in pairs])
    axes = np.array([rotations[frame][2] for frame in order])
    angle = float(np.degrees(np.arccos(np.clip(axes @ axes.T, -1, 1).min())))
    return Turning(rotations, focal, float(np.median(off)), float((off < NEAR).mean()), angle)


def _residual(pair: Pair, rotations: dict[int, np.ndarray], focal: float) -> np.ndarray:
    """(K, 2) pixels."""
    rays = np.column_stack([pair.x / focal, np.ones(len(pair.x))])
    seen = rays @ rotations[pair.first] @ rotations[pair.second].T
    return focal * seen[:, :2] / np.maximum(seen[:, 2:], 1e-3) - pair.y


def _cost(pairs: list[Pair], rotations: dict[int, np.ndarray], focal: float, guess: float) -> float:
    off = np.concatenate([np.linalg.norm(_residual(pair, rotations, focal), axis=1) for pair in pairs])
    return float(
        0.5 * CAUCHY**2 * np.log1p((off / CAUCHY) ** 2).sum() + 0.5 * (np.log(focal / guess) / FOCAL_SPREAD) ** 2
    )


def _linearised(
    pair: Pair, rotations: dict[int, np.ndarray], focal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Residual (K, 2) and its derivatives by a turn of either camera (K, 2, 3), from the left, and by log f (K, 2)."""
    rays = np.column_stack([pair.x / focal, np.ones(len(pair.x))])
    relative = rotations[pair.second] @ rotations[pair.first].T
    seen = rays @ relative.T
    z = np.maximum(seen[:, 2], 1e-3)
    project = np.zeros((len(rays), 2, 3))
    project[:, 0, 0] = project[:, 1, 1] = focal / z
    project[:, :, 2] = -focal * seen[:, :2] / z[:, None] ** 2
    by_first = project @ (relative @ _cross(rays))
    by_second = -project @ _cross(seen)
    rays_by_focal = np.column_stack([-rays[:, :2], np.zeros(len(rays))])
    by_focal = focal * seen[:, :2] / z[:, None] + np.einsum("krc,kc->kr", project, rays_by_focal @ relative.T)
    return focal * seen[:, :2] / z[:, None] - pair.y, by_first, by_second, by_focal


def _cross(vectors: np.ndarray) -> np.ndarray:
    """(K, 3, 3) matrices of the cross products with `vectors` (K, 3)."""
    x, y, z = vectors.T
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], 1)


def _turn(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation by the rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    k = _cross(vector[None] / angle)[0]
    rotation: np.ndarray = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    return rotation
