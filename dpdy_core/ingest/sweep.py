"""Plane-sweep stereo with known cameras: dense depth of what stands still.

Letters: D planes, N neighbours, H W image. Planes are evenly spaced in inverse depth d.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dpdy_core.geometry.cameras import Cameras, pixel_centres

WINDOW = 5  # side of the correlation window, pixels
FLAT = (2 / 255) ** 2  # variance of the grey values below which a window says nothing
CLIP = 2.5  # deviations from the mean of the window that count
STEP_PENALTY, JUMP_PENALTY = 0.15, 1.0  # of the smoothing, in units of the correlation cost (0 to 2)
NO_EVIDENCE = 1.0  # the cost of zero correlation


def sweep_depth(
    grey: Tensor, others: Tensor, others_static: Tensor, camera: Cameras, other_cameras: Cameras, disparities: Tensor
) -> tuple[Tensor, Tensor]:
    """Inverse depth (H, W) of `grey` (H, W) in [0, 1], and the matching cost there (H, W) in [0, 2].

    `others` (N, H, W) are neighbouring frames, of which only the `others_static` (N, H, W) bool pixels count; `camera`
    is one camera, `other_cameras` N of the same size; `disparities` (D,) increases evenly.
    """
    cost = matching_cost(grey, others, others_static, camera, other_cameras, disparities)
    smooth = semi_global(cost, grey)
    best = smooth.argmin(0)
    fine = best + _parabola_offset(smooth, best)
    disparity = disparities[0] + fine * (disparities[1] - disparities[0])
    return disparity, cost.gather(0, best[None])[0]


def matching_cost(
    grey: Tensor, others: Tensor, others_static: Tensor, camera: Cameras, other_cameras: Cameras, disparities: Tensor
) -> Tensor:
    """(D, H, W) 1 - correlation of locally normalised windows, mean over every second neighbour, the better of the two.

    Neighbours alternate between both sides in time, and what one side hides the other side mostly shows (temporal
    selection: Kang et al., CVPR 2001).
    """
    shape = (2, len(disparities), *grey.shape)
    total, count = grey.new_zeros(shape), grey.new_zeros(shape)
    reference = normalised(grey[None])
    stacks = torch.stack([normalised(others), others_static.to(grey.dtype)], dim=1)
    for n in range(len(others)):
        grid = _warp_grid(camera, other_cameras[n], disparities)
        warped = F.grid_sample(stacks[n : n + 1].expand(len(disparities), -1, -1, -1), grid, align_corners=False)
        visible = (warped[:, 1] > 0.99).to(grey.dtype)  # 0 outside of the image and on what moves
        total[n % 2] += (1 - _window_mean(reference * warped[:, 0])) * visible
        count[n % 2] += visible
    mean = torch.where(count > 0, total / count.clamp(min=1), torch.full_like(total, torch.inf)).amin(0)
    return torch.where(mean.isinf(), torch.full_like(mean, NO_EVIDENCE), mean)


def normalised(images: Tensor) -> Tensor:
    """(N, H, W) with the mean of each window taken away and divided by its deviation; near 0 where flat."""
    mean = _window_mean(images)
    variance = (_window_mean(images * images) - mean**2).clamp(min=0)
    return ((images - mean) / (variance + FLAT).sqrt()).clamp(-CLIP, CLIP)


def _window_mean(images: Tensor) -> Tensor:
    pad = WINDOW // 2
    rows = F.avg_pool2d(F.pad(images[:, None], (0, 0, pad, pad), mode="replicate"), (WINDOW, 1), 1)
    return F.avg_pool2d(F.pad(rows, (pad, pad, 0, 0), mode="replicate"), (1, WINDOW), 1)[:, 0]


def _warp_grid(camera: Cameras, other: Cameras, disparities: Tensor) -> Tensor:
    """(D, H, W, 2) where the pixels of `camera`, put at each inverse depth, lie in `other`, in [-1, 1]."""
    flat = pixel_centres(camera.width, camera.height, disparities.device).reshape(-1, 2)
    _, directions = camera.rays(torch.zeros(len(flat), dtype=torch.long, device=flat.device), flat)
    c2w = other.camera_to_world[0]
    # A point at inverse depth d is (direction + d * (centre - other centre)) / d: projection needs no division by d,
    # and each homogeneous coordinate is linear in d.
    turned = (directions @ c2w[:, :3]).T
    shift = (camera.camera_to_world[0, :, 3] - c2w[:, 3]) @ c2w[:, :3]
    focal, principal = other.focal[0], other.principal[0]
    d = disparities[:, None]
    z = (-turned[2] - d * shift[2]).clamp(min=1e-6)
    grid = torch.empty(len(disparities), len(flat), 2, device=flat.device)
    for axis, sign, length in ((0, 1.0, other.width), (1, -1.0, other.height)):
        scale, offset = sign * 2 * focal[axis] / length, 2 * principal[axis] / length - 1
        grid[..., axis] = (scale * turned[axis] + d * (scale * shift[axis])) / z + offset
    return grid.reshape(len(disparities), camera.height, camera.width, 2)


def semi_global(cost: Tensor, grey: Tensor) -> Tensor:
    """(D, H, W) `cost` summed along four directions with penalties on steps (Hirschmueller, PAMI 2008, eq. 13).

    A jump costs less across an edge of `grey` (H, W).
    """
    total = torch.zeros_like(cost)
    for horizontal in (True, False):
        lines = cost.permute(2, 0, 1) if horizontal else cost.permute(1, 0, 2)
        image = grey.T if horizontal else grey
        for backward in (False, True):
            ordered = lines.flip(0) if backward else lines
            edges = (image.flip(0) if backward else image).diff(dim=0).abs()
            summed = _scan(ordered, JUMP_PENALTY / (1 + 20 * edges))
            summed = summed.flip(0) if backward else summed
            total += summed.permute(1, 2, 0) if horizontal else summed.permute(1, 0, 2)
    return total


def _scan(lines: Tensor, jump: Tensor) -> Tensor:
    """(L, D, M) running cost along L of `lines` (L, D, M); `jump` (L - 1, M) is the penalty of any larger step."""
    summed = [lines[0]]
    for line, penalty in zip(lines[1:], jump.clamp(min=STEP_PENALTY), strict=True):
        before = summed[-1]
        least = before.amin(0)
        padded = F.pad(before, (0, 0, 1, 1), value=float("inf"))
        step = torch.minimum(padded[:-2], padded[2:]) + STEP_PENALTY
        reached = torch.minimum(torch.minimum(before, step), (least + penalty)[None])
        summed.append(line + reached - least)
    return torch.stack(summed)


def _parabola_offset(cost: Tensor, best: Tensor) -> Tensor:
    """(H, W) in [-0.5, 0.5]: the vertex of the parabola through the best plane's cost and its neighbours'."""
    last = len(cost) - 1
    left, middle, right = (cost.gather(0, (best + k).clamp(0, last)[None])[0] for k in (-1, 0, 1))
    curvature = left - 2 * middle + right
    offset = 0.5 * (left - right) / curvature.clamp(min=1e-6)
    inside = (best > 0) & (best < last) & (curvature > 1e-6)
    return torch.where(inside, offset.clamp(-0.5, 0.5), torch.zeros_like(offset))


def confirmations(disparity: Tensor, camera: Cameras, others: Tensor, other_cameras: Cameras, step: float) -> Tensor:
    """(H, W) how many of the neighbours' inverse depth maps `others` (N, H, W) agree with `disparity` (H, W).

    They agree where the point, moved into the neighbour, is within `step` of its inverse depth; 0 means none.
    """
    pixels = pixel_centres(camera.width, camera.height, disparity.device).reshape(-1, 2)
    index = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
    origins, directions = camera.rays(index, pixels)
    flat = disparity.reshape(-1)
    points = origins + directions / flat.clamp(min=1e-9)[:, None]
    count = torch.zeros_like(flat)
    size = torch.tensor([camera.width, camera.height], device=pixels.device)
    for n in range(len(others)):
        xy, depth = other_cameras[n].project(points, index)
        grid = 2 * xy / size - 1
        found = F.grid_sample(others[n][None, None], grid[None, None], mode="nearest", align_corners=False).reshape(-1)
        near = (found - 1 / depth.clamp(min=1e-9)).abs() < step
        count += (near & (found > 0) & (depth > 0) & (flat > 0)).to(count.dtype)
    return count.reshape(disparity.shape)
