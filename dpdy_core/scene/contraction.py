"""The space of the scene: where it lies, how far rays reach, and how all of space maps into the unit cube."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.scene.axes import find_axes, surface_normals

POINTS = 200_000  # depth pixels that decide the bounds
ASSUMED_DISTANCE = 3.0  # camera units to what a camera that never moves looks at


Triple = tuple[float, float, float]

WORLD: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Bounds:
    """A ball in world space that holds what the cameras look at, its axes, and the range of planar depth along rays."""

    centre: Triple
    radius: float
    near: float
    far: float
    axes: tuple[Triple, Triple, Triple] = WORLD  # orthonormal; the grids lie along them


def unit_cube(points: Tensor, centre: Tensor, axes: Tensor, radius: float) -> Tensor:
    """World points (..., 3) in [0, 1]^3, along `axes`, the rows of (3, 3).

    They are contracted around the ball, then the ball of radius 2 is scaled into the cube.
    """
    local = ((points - centre)[..., None, :] * axes).sum(dim=-1)  # in full precision whatever matmul does
    return contract(local / radius) / 4 + 0.5


def contract(points: Tensor) -> Tensor:
    """Points (..., 3) with everything outside the unit ball squeezed into radius 2 (mip-NeRF 360, equation 10)."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return torch.where(norm <= 1, points, (2 - 1 / norm) * points / norm)


def uncontract(points: Tensor) -> Tensor:
    """The inverse of `contract` for points (..., 3) of norm below 2."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return torch.where(norm <= 1, points, points / norm / (2 - norm).clamp_min(1e-9))


def find_bounds(clip: Clip) -> Bounds:
    """The bounds of a training clip: from its depth if it has any, else from its cameras and what the capture says.

    Where neither says how large the scene is (no depth and a camera that never moves) a distance is assumed.
    Depth also tells the axes; without it they are the world's.
    """
    points, depth = _depth_points(clip)
    if len(depth) >= 100:
        centre = points.median(dim=0).values
        radius = float((points - centre).norm(dim=-1).quantile(0.85))
        near, far = (float(v) for v in depth.quantile(torch.tensor([0.002, 0.998])))
        first, second, third = map(_triple, find_axes(surface_normals(clip)))
        return Bounds(_triple(centre), max(radius, 1e-6), 0.4 * near, 2.5 * far, (first, second, third))
    bounds = _camera_bounds(clip.cameras)
    if clip.depth_range is None:
        return bounds
    return replace(bounds, near=0.5 * clip.depth_range[0], far=2 * clip.depth_range[1])


def _depth_points(clip: Clip) -> tuple[Tensor, Tensor]:
    """World points (P, 3) and depths (P,) of at most `POINTS` evenly chosen pixels with depth, on the CPU."""
    if clip.depth is None:
        return torch.empty(0, 3), torch.empty(0)
    depth = clip.depth.cpu().float()
    frame, row, column = torch.nonzero(depth > 0, as_tuple=True)
    if len(frame) > POINTS:
        chosen = torch.linspace(0, len(frame) - 1, POINTS).long()
        frame, row, column = frame[chosen], row[chosen], column[chosen]
    z = depth[frame, row, column]
    origins, directions = clip.cameras.to("cpu").rays(frame, torch.stack([column, row], dim=-1) + 0.5)
    return origins + z[:, None] * directions, z


def _camera_bounds(cameras: Cameras) -> Bounds:
    """Bounds around the point that the optical axes come closest to, in the least-squares sense."""
    pose = cameras.camera_to_world.cpu().double()
    centres, axes = pose[:, :, 3], -pose[:, :, 2]
    travel = float((centres - centres.mean(dim=0)).norm(dim=-1).max())
    if travel < 1e-6:  # nothing says how large the scene is, and nothing will contradict an assumption
        ahead = centres.mean(dim=0) + ASSUMED_DISTANCE * axes.mean(dim=0)
        return Bounds(_triple(ahead.float()), 0.5 * ASSUMED_DISTANCE, 0.05 * ASSUMED_DISTANCE, 20 * ASSUMED_DISTANCE)
    projector = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    system = projector.sum(dim=0) + 1e-3 * len(axes) * torch.eye(3, dtype=torch.float64)
    # Parallel axes meet nowhere: the small ridge pulls the answer to a point a few travels ahead.
    guess = centres.mean(dim=0) + axes.mean(dim=0) * 4 * travel
    target = torch.linalg.solve(system, torch.einsum("nij,nj->i", projector, centres - guess)) + guess
    ahead = ((target - centres) * axes).sum(dim=-1).mean()
    if ahead < 0.5 * travel:  # the axes meet behind the cameras: they look outward
        target = guess
    distance = float((target - centres).norm(dim=-1).mean())
    return Bounds(_triple(target.float()), radius=0.5 * distance, near=0.05 * distance, far=20 * distance)


def _triple(point: Tensor) -> Triple:
    x, y, z = (float(v) for v in point)
    return x, y, z
