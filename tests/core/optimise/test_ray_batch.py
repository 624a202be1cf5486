"""Batches of training rays, and rays aimed again from moved cameras."""

from pathlib import Path

import torch
from optimise_scenes import cast, write_capture

from dpdy_core.ingest.clip import Clip, load_clip
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.ray_batch import MOVING_SHARE, TrainingRays
from dpdy_core.scene.contraction import find_bounds


def tiny_clip(folder: Path, depth: bool = True, masks: bool = True) -> Clip:
    clip = load_clip(write_capture(folder, depth=depth, masks=masks).capture, "train", 24)
    assert clip is not None
    return clip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rays_carry_the_pixels_they_go_through(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    batch = TrainingRays(clip, reaimed=0.0).draw(200, seeded())
    assert clip.depth is not None
    assert clip.motion is not None
    pixels, z = clip.cameras.project(batch.origins + 1.5 * batch.directions, batch.frame)
    torch.testing.assert_close(z, torch.full((200,), 1.5))
    column, row = pixels.floor().long().unbind(-1)
    torch.testing.assert_close(batch.colour, clip.colours()[batch.frame, row, column])
    assert torch.equal(batch.depth, clip.depth[batch.frame, row, column])
    assert torch.equal(batch.moving, clip.motion[batch.frame, row, column])
    assert torch.equal(batch.times, clip.times[batch.frame])
    assert (batch.observed == 1).all()


def test_movers_get_their_share(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    assert clip.motion is not None
    assert float(clip.motion.float().mean()) < 0.15
    batch = TrainingRays(clip, reaimed=0.0).draw(3000, seeded())
    assert float(batch.moving.float().mean()) > MOVING_SHARE


def test_ignored_pixels_are_never_drawn(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    clip.valid[:, :, :12] = False
    batch = TrainingRays(clip, reaimed=0.5).draw(2000, seeded())
    plain = batch.frame.new_tensor(range(1000))
    pixels, _ = clip.cameras.project(batch.origins[plain] + batch.directions[plain], batch.frame[plain])
    assert float(pixels[:, 0].min()) > 12


def test_reaimed_rays_see_what_a_camera_there_would_see(tmp_path: Path) -> None:
    """Colour and depth of certified rays against ray casting from the moved camera."""
    clip = tiny_clip(tmp_path)
    count = 1200
    batch = TrainingRays(clip, reaimed=0.5).draw(count, seeded())
    again = torch.arange(count // 2, count)
    moved = (batch.origins[again] - clip.cameras.centres[batch.frame[again]]).norm(dim=-1)
    assert float(moved.median()) > 0.2
    certain = again[(batch.observed[again] > 0) & (moved > 1e-4)]
    assert len(certain) > 0.4 * len(again)
    wrong = 0
    for ray in certain[:150].tolist():
        _, depth, _ = cast(batch.origins[ray], batch.directions[ray], float(batch.times[ray]))
        wrong += abs(float(depth) - float(batch.depth[ray])) > 0.05 * float(depth)
    assert wrong <= 0.05 * 150


def test_novel_rays_come_from_elsewhere_and_are_only_regularised(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    bounds = find_bounds(clip)
    batch = TrainingRays(clip, 0.5, NovelViews(clip, bounds, 16), 0.25).draw(200, seeded(), progress=1.0)
    new = slice(150, 200)
    assert (batch.observed[new] == 0).all()
    assert (batch.depth[new] == 0).all()
    assert float(torch.cdist(batch.origins[new], clip.cameras.centres).min()) > 1e-3
    assert set(batch.times[new].tolist()) <= set(clip.times.tolist())
    ahead = torch.nn.functional.normalize(torch.tensor(bounds.centre) - batch.origins[new], dim=-1)
    assert float((ahead * torch.nn.functional.normalize(batch.directions[new], dim=-1)).sum(-1).min()) > 0.5
    rest = TrainingRays(clip, 0.5).draw(150, seeded())
    assert torch.equal(batch.directions[:150], rest.directions)
    assert torch.equal(batch.observed[:150], rest.observed)


def test_without_depth_no_ray_is_aimed_again(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path, depth=False)
    batch = TrainingRays(clip, reaimed=0.5).draw(100, seeded())
    assert torch.equal(batch.origins, clip.cameras.centres[batch.frame])
    assert (batch.depth == 0).all()


def test_equal_seeds_draw_equal_batches(tmp_path: Path) -> None:
    rays = TrainingRays(tiny_clip(tmp_path), reaimed=0.3)
    first, second, other = rays.draw(64, seeded(1)), rays.draw(64, seeded(1)), rays.draw(64, seeded(2))
    assert torch.equal(first.directions, second.directions)
    assert not torch.equal(first.directions, other.directions)
