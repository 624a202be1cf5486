"""What movers hide of themselves, or have hidden from them, at one time, and show at another."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.ingest.clip import Clip
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.rigid_pieces import RigidPieces, find_rigid_pieces

REACH = 4  # frames that a surface is carried over at most: what is farther was off by pixels
HIDDEN = 0.03  # relative depth by which it must lie behind what a frame saw
BESIDE = 5  # pixels about one
CELL = 1.5  # pixels: surfaces as near to each other are one, and shown as the frame nearest in time saw it
FARTHEST = 1_000_000  # cells from the middle
CLOUD, MOST = 1 << 16, 1 << 20  # points looked at for one time; entries in all
SAME_DEPTH, SAME_LOOK = 0.03, 24  # relative depth, and grey levels in the most different channel, between two sights
CONFIRMED = 0.75  # share of a carried piece, where the other frame sees it, that must look the same there
SEEN, SEEN_SHARE = 60, 0.3  # pixels of it, and share, that the other frame must see


@dataclass(frozen=True)
class CarriedPixels:
    """E pixels of movers, each with the time of another frame, which did not see its surface though it was there."""

    frame: Tensor  # (E,) int: the frame that saw it
    row: Tensor  # (E,) int
    column: Tensor  # (E,) int
    target: Tensor  # (E,) int: the frame that did not
    motion: Tensor  # (E,) int, into the next two
    motions: Tensor  # (M, 3, 4): the world at the time of `frame` to that at the time of `target`
    piece: Tensor  # (M,) int, the number in frame `target` of the piece that it belongs to
    pieces: Tensor  # (T, H, W) int: the number of the piece that a pixel shows, 0 = none

    def __len__(self) -> int:
        return len(self.frame)

    def to(self, device: torch.device | str) -> "CarriedPixels":
        return CarriedPixels(**{name: value.to(device) for name, value in vars(self).items()})


def find_carried_pixels(clip: Clip, check: Callable[[], None]) -> CarriedPixels | None:
    """What can be carried in `clip`, which lies on the CPU and has depth in its cameras' scale; None if nothing can.

    A piece is carried to the time of a frame that sees enough of it to confirm where it is. Of its surface what that
    frame does not see is kept, as the frame nearest in time saw it. `check()` is called after each frame and
    may raise.
    """
    if clip.depth is None or clip.motion is None:
        return None
    images, depth, moving = clip.images.numpy(), clip.depth.numpy(), (clip.motion & clip.valid).numpy()
    pieces, cameras = find_rigid_pieces(images, depth, moving, clip.cameras, REACH, check), pinholes(clip.cameras)
    pixels = _pixels(pieces, depth)
    entries: list[np.ndarray] = []
    motions: list[np.ndarray] = []
    numbers: list[int] = []
    for target in range(len(clip)):
        found: list[np.ndarray] = []  # (5, N): the first five fields of the result
        places: list[np.ndarray] = []
        for source in range(max(0, target - REACH), min(target + REACH + 1, len(clip))):
            for piece, step in pieces.motions(source, target).items() if source != target else ():
                row, column = pixels[source][piece].T
                points = cameras[source].lift(np.column_stack([column, row]), depth[source, row, column])
                points = points @ step.motion[:3, :3].T + step.motion[:3, 3]
                sight = _sight(points, cameras[target], depth[target])
                alike = _alike(images[source, row, column], images[target].reshape(-1, 3)[sight.pixel])
                if _is_confirmed(sight, alike, (pieces.numbers[target] == step.piece).flatten()[sight.pixel]):
                    new = np.flatnonzero(sight.hidden)
                    one = np.ones_like(new)
                    found.append(np.stack([source * one, row[new], column[new], target * one, len(motions) * one]))
                    places.append(points[new])
                    motions.append(step.motion[:3])
                    numbers.append(step.piece)
        if sum(map(len, places)) == 0:
            continue
        entry, place = np.concatenate(found, axis=1), np.concatenate(places)
        size = CELL * np.median(depth[target][depth[target] > 0]) / float(clip.cameras.focal[target, 0])
        kept = np.flatnonzero(_nearest_in_time(place, np.abs(entry[0] - target), size))
        entries.append(entry[:, kept[:: max(1, -(-len(kept) * len(clip) // MOST))]])
    if not entries:
        return None
    frame, row, column, target_frame, motion = torch.from_numpy(np.concatenate(entries, axis=1)).long()
    return CarriedPixels(
        frame=frame,
        row=row,
        column=column,
        target=target_frame,
        motion=motion,
        motions=torch.from_numpy(np.stack(motions)).float(),
        piece=torch.tensor(numbers),
        pieces=torch.from_numpy(pieces.numbers),
    )


def _pixels(pieces: RigidPieces, depth: np.ndarray) -> list[dict[int, np.ndarray]]:
    """(N, 2) row and column of pixels of each frame's pieces by number; every n-th of a large clip.

    Without those beside something nearer: a small error of the motion would put it in front of them.
    """
    step = max(1, int((pieces.numbers > 0).sum() * 2 * REACH / len(depth) / CLOUD))
    around = np.ones((BESIDE, BESIDE), np.uint8)
    found = []
    for numbers, z in zip(pieces.numbers, depth, strict=True):
        nearest = cv2.erode(np.where(z > 0, z, np.inf).astype(np.float32), around)
        front = np.where(z / (1 + HIDDEN) <= nearest, numbers, 0)
        found.append({k: np.argwhere(front == k)[::step] for k in range(1, int(numbers.max()) + 1)})
    return found


@dataclass(frozen=True)
class _Sight:
    """Where N points fall in a frame and what it saw there."""

    pixel: np.ndarray  # (N,) int, flat index of the image
    inside: np.ndarray  # (N,) bool
    nearness: np.ndarray  # (N,) depth of the point / depth that the frame has there; infinity where it has none

    @property
    def hidden(self) -> np.ndarray:
        """(N,) bool: what the frame left open: behind what it saw, or out of view."""
        return ~self.inside | ((self.nearness > 1 + HIDDEN) & np.isfinite(self.nearness))


def _sight(points: np.ndarray, camera: Pinhole, depth: np.ndarray) -> _Sight:
    pixels, z = camera.project(points)
    column, row = np.rint(pixels).clip(-1, 1e6).astype(int).T
    height, width = depth.shape
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row.clip(0, height - 1) * width + column.clip(0, width - 1)
    surface = depth.flatten()[pixel]
    return _Sight(pixel, inside, np.where(surface > 0, z / np.where(surface > 0, surface, 1), np.inf))


def _alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) bool whether colours (N, 3) uint8 are about the same."""
    alike: np.ndarray = np.abs(first.astype(int) - second).max(-1) < SAME_LOOK
    return alike


def _is_confirmed(sight: _Sight, alike: np.ndarray, on_piece: np.ndarray) -> bool:
    """Whether the frame sees enough of a carried piece where the frame has it, and most of that is `alike` (N,)."""
    seen = sight.inside & on_piece & (np.abs(sight.nearness - 1) < SAME_DEPTH)
    return bool(seen.sum() >= max(SEEN, SEEN_SHARE * len(seen)) and alike[seen].mean() > CONFIRMED)


def _nearest_in_time(points: np.ndarray, gaps: np.ndarray, size: float) -> np.ndarray:
    """(N,) bool: of the `points` (N, 3) in each cell of side `size`, those with the smallest of `gaps` (N,)."""
    place = np.floor((points - np.median(points, axis=0)) / size).clip(-FARTHEST, FARTHEST - 1).astype(np.int64)
    _, cell = np.unique(np.ravel_multi_index(tuple((place + FARTHEST).T), (2 * FARTHEST,) * 3), return_inverse=True)
    least = np.full(int(cell.max()) + 1, gaps.max() + 1)
    np.minimum.at(least, cell, gaps)
    nearest: np.ndarray = gaps == least[cell]
    return nearest
