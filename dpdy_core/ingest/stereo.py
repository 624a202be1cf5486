"""Depth of a whole clip by plane sweeps: which frames are compared, between which planes, and what is believed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpdy_core.config import DepthConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.pieces import resized_masks
from dpdy_core.ingest.sparse import SparsePoints
from dpdy_core.ingest.sweep import confirmations, sweep_depth

BEST_ANGLE = 6.0  # degrees between two views at the scene's median depth: enough parallax, still alike
ANGLE_SPREAD = 0.8  # of the logarithm of the angle
MAX_COST = 1.1  # of 2: no correlation is 1 and may be filled from around, but windows must not contradict
CONFIRMED_PLANES = 1.25  # planes by which two depth maps may differ
NEAR_MARGIN, FAR_MARGIN = 0.75, 1.6  # room around the depth range of the sparse points


@dataclass(frozen=True)
class Swept:
    """What the sweeps of a clip found, before it is known what of it may be believed."""

    disparity: Tensor  # (T, H, W) inverse planar depth of all pixels, what moves too; 0 where windows do not correlate
    cameras: Cameras  # of that size
    neighbours: list[list[int]]  # the frames that each was compared with
    step: float  # between two planes

    def believed(self, static: np.ndarray) -> np.ndarray:
        """(T, H, W) float32 planar depth of the `static` pixels, 0 where nothing reliable was found.

        A depth is believed where the maps of other frames put the same surface there. `static` (T, h, w) bool may be
        of another size.
        """
        size = (self.cameras.width, self.cameras.height)
        disparity = self.disparity * torch.from_numpy(resized_masks(static, size)).to(self.disparity.device)
        depth = torch.zeros_like(disparity)
        for i, others in enumerate(self.neighbours):
            own, compared = self.cameras[i], self.cameras[others]
            votes = confirmations(disparity[i], own, disparity[others], compared, CONFIRMED_PLANES * self.step)
            trusted = (votes >= min(2, len(others))) & (disparity[i] > 0)
            depth[i] = torch.where(trusted, 1 / disparity[i].clamp(min=1e-9), torch.zeros_like(votes))
        return depth.cpu().numpy()


def sweep_clip(
    greys: np.ndarray,
    static: np.ndarray,
    cameras: Cameras,
    points: SparsePoints,
    settings: DepthConfig,
    device: torch.device,
    check: Callable[[int, int], None],
) -> Swept:
    """Plane sweeps of every frame of a clip against the `static` (T, H, W) bool pixels of others.

    `greys` (T, H, W) uint8 are at the size of `cameras`. `check(done, total)` may raise to stop.
    """
    images = torch.from_numpy(greys).to(device, torch.float32) / 255
    still = torch.from_numpy(static).to(device)
    cameras = cameras.to(device)
    chosen = [_neighbours(cameras, i, float(np.median(points.depth)), settings.neighbours) for i in range(len(images))]
    planes = _planes(points, settings.planes).to(device)
    disparity = torch.zeros_like(images)
    for i, others in enumerate(chosen):
        found, cost = sweep_depth(images[i], images[others], still[others], cameras[i], cameras[others], planes)
        disparity[i] = torch.where(cost < MAX_COST, found, torch.zeros_like(found))
        check(i + 1, len(images))
    return Swept(disparity, cameras, chosen, float(planes[1] - planes[0]))


def _planes(points: SparsePoints, count: int) -> Tensor:
    """(D,) increasing inverse depths, from beyond the farthest to before the nearest sparse point."""
    near, far = np.percentile(points.depth, [1, 99])
    return torch.linspace(1 / (far * FAR_MARGIN), 1 / (near * NEAR_MARGIN), count)


def _neighbours(cameras: Cameras, index: int, depth: float, count: int) -> list[int]:
    """The frames with the most useful baseline to frame `index`, from both sides of it in time where there are any."""
    centres = cameras.centres
    viewing = -cameras.camera_to_world[:, :, 2]
    offset = centres - centres[index]
    along = (offset * viewing[index]).sum(-1, keepdim=True) * viewing[index]
    baseline = (offset - along).norm(dim=-1)  # moving along the view gives little parallax
    angle = torch.rad2deg(torch.atan2(baseline, torch.full_like(baseline, depth)))
    alike = (viewing @ viewing[index]).clamp(min=0)
    score = torch.exp(-0.5 * (torch.log(angle.clamp(min=1e-3) / BEST_ANGLE) / ANGLE_SPREAD) ** 2) * alike**4
    score[index] = -1
    order = score.argsort(descending=True, stable=True).tolist()
    before = [j for j in order if j < index]
    after = [j for j in order if j > index]
    sides = [j for pair in zip(before, after, strict=False) for j in pair]
    rest = [j for j in order if j != index and j not in sides]
    return (sides + rest)[:count]
