"""Rigid pieces of what moves, and how each travels from frame to frame, told by flow and depth."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.flow import GAPS, Flows, consistent, flow_both_ways, grey, pixel_grid
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.size import fitted_size

FLOW_SIZE = 320  # longer side at which flow is found, pixels
EDGE = 0.06  # relative jump in depth at which one piece ends
SMALLEST = 40  # pixels: a smaller piece does not tell how it turns
FOLLOWED = 0.3  # share of a piece that must be followed to the other frame
RIGID = 0.75  # share of what is followed that one motion must explain
MISSED, MISSED_SHARE, OFF = 0.5, 2e-3, 0.03  # pixels + share of the width, and relative depth, that it may miss by
SAMPLE = 1000  # pixels of a piece that its motion is found from
TRIALS, JUDGES, ROUNDS = 32, 200, 4  # triples tried, pixels that judge each, least squares on what agrees


@dataclass(frozen=True)
class Step:
    """A piece's way to another frame."""

    motion: np.ndarray  # (4, 4): the world as the piece fills it at one frame's time, to that at the other's
    piece: int  # its number there


@dataclass(frozen=True)
class RigidPieces:
    """The pieces of every frame and the steps that are known."""

    numbers: np.ndarray  # (T, H, W) int32, 0 = none
    steps: dict[tuple[int, int], dict[int, Step]]  # by frame and the frame GAPS from it

    def motions(self, source: int, target: int) -> dict[int, Step]:
        """How each piece of frame `source` that can be followed to frame `target` gets there, in the fewest steps."""
        found = {}
        for piece in range(1, int(self.numbers[source].max()) + 1):
            if (step := self._motion(source, target, piece)) is not None:
                found[piece] = step
        return found

    def _motion(self, source: int, target: int, piece: int) -> Step | None:
        if source == target:
            return Step(np.eye(4), piece)
        for gap in reversed(GAPS):
            if gap <= abs(target - source):
                middle = source + gap if target > source else source - gap
                step = self.steps.get((source, middle), {}).get(piece)
                rest = None if step is None else self._motion(middle, target, step.piece)
                if step is not None and rest is not None:
                    return Step(rest.motion @ step.motion, rest.piece)
        return None


def find_rigid_pieces(
    images: np.ndarray, depth: np.ndarray, moving: np.ndarray, cameras: Cameras, reach: int, check: Callable[[], None]
) -> RigidPieces:
    """The rigid pieces of the frames `images` (T, H, W, 3) uint8 RGB and their steps, forwards and backwards, over
    those of GAPS that do not exceed `reach`.

    `depth` (T, H, W) is planar, 0 = none, and `moving` (T, H, W) bool. A piece is what hangs together of the moving
    pixels without a jump in depth; what bends, or is followed badly, gets no step. `check()` is called after each frame
    and may raise.
    """
    numbers = np.stack([_pieces(m & (z > 0), z) for m, z in zip(moving, depth, strict=True)])
    height, width = depth.shape[1:]
    size, lenses = fitted_size(width, height, FLOW_SIZE), pinholes(cameras)
    greys = [cv2.resize(grey(image), size, interpolation=cv2.INTER_AREA) for image in images]
    steps: dict[tuple[int, int], dict[int, Step]] = {}
    gaps = [gap for gap in GAPS if gap <= reach]
    flows: Flows = {}
    for last in range(len(images)):
        flows = {pair: flow for pair, flow in flows.items() if min(pair) >= last - reach}
        for first in (last - gap for gap in gaps if gap <= last):
            flows |= flow_both_ways(greys, first, last, flows)
            for a, b in ((first, last), (last, first)):
                followed = consistent(flows[a, b], flows[b, a])
                flow, followed = _widened(flows[a, b], followed, width, height)
                steps[a, b] = _steps(numbers[[a, b]], depth[[a, b]], (lenses[a], lenses[b]), flow, followed)
        check()
    return RigidPieces(numbers, steps)


def _widened(flow: np.ndarray, followed: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """`flow` (h, w, 2) and whether it holds, `followed` (h, w) bool, for pixels of an image of `width` x `height`."""
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    wide = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * scale
    return wide, cv2.resize(followed.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _pieces(there: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(H, W) int32: what hangs together of `there` (H, W) bool, numbered from 1."""
    around = np.ones((3, 3), np.uint8)
    farthest = cv2.dilate(np.where(there, depth, 0).astype(np.float32), around)
    nearest = cv2.erode(np.where(there, depth, np.inf).astype(np.float32), around)
    smooth = there & (farthest - nearest <= EDGE * depth)
    count, found, stats, _ = cv2.connectedComponentsWithStats(smooth.astype(np.uint8), connectivity=4)
    kept = np.zeros(count, np.int32)
    large = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= SMALLEST]
    kept[large] = np.arange(1, len(large) + 1)
    return kept[found]


def _steps(
    numbers: np.ndarray, depth: np.ndarray, cameras: tuple[Pinhole, Pinhole], flow: np.ndarray, followed: np.ndarray
) -> dict[int, Step]:
    """The steps of the pieces of the first of two frames; `numbers` and `depth` (2, H, W)."""
    height, width = followed.shape
    start = pixel_grid(width, height)
    end = start + flow
    column, row = np.rint(end).astype(int).transpose(2, 0, 1)
    place = row.clip(0, height - 1), column.clip(0, width - 1)
    reached, surface = numbers[1][place], depth[1][place]
    found = {}
    for piece in range(1, int(numbers[0].max()) + 1):
        inside = numbers[0] == piece
        matched = inside & followed & (reached > 0)
        if matched.sum() < max(SMALLEST / 2, FOLLOWED * inside.sum()):
            continue
        other = int(np.bincount(reached[matched]).argmax())
        matched &= reached == other
        at = np.flatnonzero(matched)
        at = at[:: max(1, len(at) // SAMPLE)]
        pixels, z = end.reshape(-1, 2)[at], surface.flat[at]
        first = cameras[0].lift(start.reshape(-1, 2)[at], depth[0].flat[at])
        motion = _rigid_motion(first, cameras[1].lift(pixels, z), pixels, z, cameras[1], MISSED + MISSED_SHARE * width)
        if motion is not None:
            found[piece] = Step(motion, other)
    return found


def _rigid_motion(
    first: np.ndarray, second: np.ndarray, pixels: np.ndarray, depth: np.ndarray, camera: Pinhole, tolerance: float
) -> np.ndarray | None:
    """(4, 4) that carries the points `first` (N, 3) onto `second`, seen at `pixels` and `depth`; None if few agree.

    RANSAC on triples, then least squares on what agrees, a few times.
    """
    if len(first) < SMALLEST / 2:
        return None

    def agree(motions: np.ndarray, of: slice) -> np.ndarray:
        moved = first[of] @ motions[:, :3, :3].transpose(0, 2, 1) + motions[:, None, :3, 3]
        seen, z = camera.project(moved.reshape(-1, 3))
        off = ((seen.reshape(*moved.shape[:2], 2) - pixels[of]) ** 2).sum(-1)
        near = np.abs(z.reshape(moved.shape[:2]) - depth[of]) < OFF * depth[of]
        agreed: np.ndarray = (off < tolerance**2) & near
        return agreed

    triples = np.random.default_rng(0).integers(0, len(first), (TRIALS, 3))
    tried = rigid_fit(first[triples], second[triples])
    motion = tried[[agree(tried, slice(None, None, max(1, len(first) // JUDGES))).sum(1).argmax()]]
    for _ in range(ROUNDS):
        agreed = agree(motion, slice(None))[0]
        if agreed.sum() < max(SMALLEST / 4, RIGID * len(first)):
            return None
        motion = rigid_fit(first[agreed][None], second[agreed][None])
    fitted: np.ndarray = motion[0]
    return fitted


def rigid_fit(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, 4, 4) rotations and shifts that carry `first` (M, N, 3) onto `second` with least squared error.

    Kabsch, "A solution for the best rotation to relate two sets of vectors" (Acta Cryst. 1976), without reflections.
    """
    a, b = first.mean(1), second.mean(1)
    u, _, vt = np.linalg.svd(np.einsum("mni,mnj->mij", second - b[:, None], first - a[:, None]))
    sign = np.ones((len(first), 3))
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    motion = np.broadcast_to(np.eye(4), (len(first), 4, 4)).copy()
    motion[:, :3, :3] = (u * sign[:, None]) @ vt
    motion[:, :3, 3] = b - np.einsum("mij,mj->mi", motion[:, :3, :3], a)
    return motion
