from pathlib import Path

import numpy as np
import torch
from textured_room import sideways, write_room

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest import sweep
from dpdy_core.ingest.clip import load_clip
from dpdy_core.ingest.sweep import confirmations, matching_cost, normalised, semi_global, sweep_depth


def _view(folder: Path) -> tuple[torch.Tensor, torch.Tensor, Cameras]:
    room = write_room(folder, sideways(5, 0.6))
    clip = load_clip(room.run.capture, "train", 160)
    assert clip is not None
    depth = torch.from_numpy(np.stack([room.depth[name] for name in clip.names]))
    return clip.colours().mean(-1), depth, clip.cameras


def test_the_warp_is_the_cameras_projection(tmp_path: Path) -> None:
    _, _, cameras = _view(tmp_path)
    disparities = torch.tensor([0.2, 0.5])
    grid = sweep._warp_grid(cameras[0], cameras[3], disparities)
    origins, directions = cameras.image_rays(0)
    for d, found in zip(disparities, grid, strict=True):
        points = (origins + directions / d).reshape(-1, 3)
        xy, _ = cameras.project(points, torch.full((len(points),), 3))
        expected = 2 * xy / torch.tensor([cameras.width, cameras.height]) - 1
        torch.testing.assert_close(found.reshape(-1, 2), expected, atol=1e-4, rtol=1e-4)


def test_what_lies_behind_the_other_camera_is_not_seen() -> None:
    ahead = torch.eye(4)[None, :3]
    behind = ahead.clone()
    behind[0, 2, 3] = -10.0  # looks the same way from beyond the planes
    one = Cameras(ahead, torch.full((1, 2), 10.0), torch.full((1, 2), 8.0), 16, 16)
    other = Cameras(behind, one.focal, one.principal, 16, 16)
    image = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    cost = matching_cost(
        image, image[None], torch.ones(1, 16, 16, dtype=torch.bool), one, other, torch.tensor([0.5, 1])
    )
    inner = cost[:, 1:7, 1:7]  # around the principal point everything projects into the image, mirrored
    assert (inner == sweep.NO_EVIDENCE).all()


def test_semi_global_equals_the_recursion_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(4, 5, 6, generator=generator, dtype=torch.float64)
    grey = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    expected = torch.zeros_like(cost)
    planes, height, width = cost.shape
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        summed = torch.zeros_like(cost)
        for y in range(height) if dy >= 0 else reversed(range(height)):
            for x in range(width) if dx >= 0 else reversed(range(width)):
                py, px = y - dy, x - dx
                if not (0 <= py < height and 0 <= px < width):
                    summed[:, y, x] = cost[:, y, x]
                    continue
                edge = abs(float(grey[y, x] - grey[py, px]))
                jump = max(sweep.JUMP_PENALTY / (1 + 20 * edge), sweep.STEP_PENALTY)
                before = summed[:, py, px]
                for d in range(planes):
                    choices = [before[d], before.min() + jump]
                    choices += [before[k] + sweep.STEP_PENALTY for k in (d - 1, d + 1) if 0 <= k < planes]
                    summed[d, y, x] = cost[d, y, x] + min(choices) - before.min()
        expected += summed
    torch.testing.assert_close(semi_global(cost, grey), expected)


def test_normalised_windows_do_not_see_exposure() -> None:
    image = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalised(image * 0.6 + 0.2), normalised(image), atol=1e-2, rtol=0)
    assert normalised(torch.full((1, 9, 9), 0.5)).abs().max() < 1e-3


def test_depth_of_a_known_room(tmp_path: Path) -> None:
    grey, depth, cameras = _view(tmp_path)
    others = [0, 4, 1, 3]
    still = torch.ones(4, *grey.shape[1:], dtype=torch.bool)
    planes = torch.linspace(1 / 7, 1 / 1.2, 64)
    disparity, cost = sweep_depth(grey[2], grey[others], still, cameras[2], cameras[others], planes)
    error = ((1 / disparity - depth[2]).abs() / depth[2])[8:-8, 12:-12]
    assert error.median() < 0.015
    assert (error < 0.05).float().mean() > 0.9
    assert cost.median() < 0.7  # 1 is no correlation


def test_moving_pixels_of_the_neighbours_do_not_count(tmp_path: Path) -> None:
    grey, _, cameras = _view(tmp_path)
    nothing = torch.zeros(2, *grey.shape[1:], dtype=torch.bool)
    planes = torch.linspace(0.2, 0.8, 8)
    cost = matching_cost(grey[2], grey[[0, 4]], nothing, cameras[2], cameras[[0, 4]], planes)
    assert (cost == sweep.NO_EVIDENCE).all()


def test_only_maps_of_the_same_surface_confirm(tmp_path: Path) -> None:
    _, depth, cameras = _view(tmp_path)
    others = [1, 3]
    votes = confirmations(1 / depth[2], cameras[2], 1 / depth[others], cameras[others], 0.02)
    assert (votes[8:-8, 12:-12] >= 1).float().mean() > 0.97
    wrong = confirmations(1 / (depth[2] * 1.3), cameras[2], 1 / depth[others], cameras[others], 0.02)
    assert wrong.float().mean() < 0.1
