"""Surfaces of movers shown at times at which they were hidden, against ray tracing of the true scene."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from dpdy_core.errors import Cancelled
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.carried_pixels import CarriedPixels, find_carried_pixels
from dpdy_core.optimise.carried_rays import CarriedRays
from dpdy_core.optimise.ray_batch import RayBatch, TrainingRays
from dpdy_core.synth.capture import cameras_around, rgb_bytes
from dpdy_core.synth.raytrace import PieceList, trace
from dpdy_core.synth.scenes import build_scene
from dpdy_core.synth.shading import draw
from dpdy_core.synth.world import World

FRAMES, WIDTH, HEIGHT = 10, 256, 192
TIMES = torch.linspace(0.2, 0.6, FRAMES)


@cache
def filmed(name: str = "occlusion") -> tuple[World, Clip]:
    """Movers, which in the scene `occlusion` pass behind pillars."""
    scene = build_scene(name, 103)
    world = scene.at(TIMES)
    cameras = cameras_around(-90 + scene.sweep * (TIMES - 0.5), torch.full((FRAMES,), 18.0), WIDTH, HEIGHT)
    images = draw(world, cameras)
    clip = Clip(
        names=[f"{i}.png" for i in range(FRAMES)],
        times=TIMES,
        cameras=cameras,
        images=torch.from_numpy(rgb_bytes(images.rgb)),
        valid=torch.ones(FRAMES, HEIGHT, WIDTH, dtype=torch.bool),
        depth=images.depth[:, 0],
        motion=scene.moving[world.pieces.owner[0]][images.place],
        covisible=None,
    )
    return world, clip


@cache
def carried() -> CarriedPixels:
    found = find_carried_pixels(filmed()[1], lambda: None)
    assert found is not None
    return found


def drawn(clip: Clip, count: int, cameras: Cameras | None = None) -> tuple[RayBatch, RayBatch]:
    """A batch, and those of its rays that are carried."""
    rays = TrainingRays(clip, reaimed=0.4, carried=carried(), carried_share=0.5)
    batch = rays.draw(count, torch.Generator().manual_seed(0), cameras)
    number = int(count * rays.carried_share)
    return batch, RayBatch(**{name: value[count - number :] for name, value in vars(batch).items()})


def met(world: World, batch: RayBatch) -> Tensor:
    """(R,) the true depth along each ray at its time."""
    frame = torch.searchsorted(TIMES, batch.times)
    hits = [
        trace(PieceList(world[[int(f)]]), o[None], d[None, :, None]).depth
        for f, o, d in zip(frame, batch.origins, batch.directions, strict=True)
    ]
    return torch.cat(hits)


def test_only_what_the_frame_of_that_time_did_not_see_is_carried() -> None:
    _, clip = filmed()
    pixels = carried()
    assert len(pixels) > 300
    assert clip.depth is not None
    assert clip.motion is not None
    assert clip.motion[pixels.frame, pixels.row, pixels.column].all()
    assert (pixels.frame != pixels.target).all()
    at = torch.stack([pixels.column, pixels.row], dim=-1) + 0.5
    origins, directions = clip.cameras.rays(pixels.frame, at)
    points = origins + clip.depth[pixels.frame, pixels.row, pixels.column][:, None] * directions
    motion = pixels.motions[pixels.motion]
    points = torch.einsum("nij,nj->ni", motion[:, :, :3], points) + motion[:, :, 3]
    place, z = clip.cameras.project(points, pixels.target)
    column, row = place.floor().long().unbind(-1)
    inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    surface = clip.depth[pixels.target, row.clamp(0, HEIGHT - 1), column.clamp(0, WIDTH - 1)]
    assert float((~inside | (z > surface)).float().mean()) > 0.98


def test_carried_rays_meet_the_mover_where_it_truly_is() -> None:
    world, clip = filmed()
    _, rays = drawn(clip, 8000)
    certain = rays.observed > 0
    assert int(certain.sum()) > 60
    rays = RayBatch(**{name: value[certain] for name, value in vars(rays).items()})
    assert rays.moving.all()
    assert (rays.times != clip.times[rays.frame]).all()
    length = rays.directions.norm(dim=-1)
    off = (met(world, rays) - rays.depth) * length
    near = off.abs() < 0.025 * rays.depth  # of the distance from which the surface was seen
    assert float(near.float().mean()) > 0.9


def test_unless_the_way_is_checked_many_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test before this relies on."""
    world, clip = filmed()
    monkeypatch.setattr(CarriedRays, "_free_share", lambda _, points, *__: torch.ones(len(points)))
    _, rays = drawn(clip, 8000)
    rays = RayBatch(**{name: value[rays.observed > 0] for name, value in vars(rays).items()})
    off = (met(world, rays) - rays.depth) * rays.directions.norm(dim=-1)
    assert float((off.abs() < 0.025 * rays.depth).float().mean()) < 0.7


def test_they_are_as_large_a_part_as_there_is_to_show() -> None:
    _, clip = filmed()
    few = replace(carried(), **{name: getattr(carried(), name)[:10] for name in ("frame", "row", "column", "target")})
    assert TrainingRays(clip, 0.4, carried=few, carried_share=0.1).carried_share < 0.01
    assert TrainingRays(clip, 0.4, carried=carried(), carried_share=0.01).carried_share == 0.01
    batch, rays = drawn(clip, 500)
    assert len(batch.times) == 500
    assert 0 < len(rays.times) < 250


def test_carried_rays_follow_the_cameras() -> None:
    _, clip = filmed()
    poses = clip.cameras.camera_to_world.clone().requires_grad_()
    _, rays = drawn(clip, 500, replace(clip.cameras, camera_to_world=poses))
    (rays.origins[rays.observed > 0] + rays.directions[rays.observed > 0]).sum().backward()  # type: ignore[no-untyped-call]
    assert poses.grad is not None
    assert float(poses.grad.abs().sum()) > 0


@pytest.mark.parametrize("lacking", ["depth", "motion"])
def test_nothing_is_carried_without_depth_or_masks(lacking: str) -> None:
    assert find_carried_pixels(replace(filmed()[1], **{lacking: None}), lambda: None) is None


def test_nothing_is_carried_where_nothing_moves() -> None:
    clip = filmed()[1]
    assert clip.motion is not None
    assert find_carried_pixels(replace(clip, motion=torch.zeros_like(clip.motion)), lambda: None) is None


def test_surfaces_that_do_not_look_the_same_again_are_not_carried() -> None:
    """The motion fits, but what the frames show there contradicts it."""
    clip = filmed()[1]
    dice = torch.Generator().manual_seed(0)
    flashing = clip.images.int() + torch.tensor([0, 90] * (FRAMES // 2))[:, None, None, None]
    noise = torch.randint(-40, 40, clip.images.shape, generator=dice)
    other = find_carried_pixels(replace(clip, images=(flashing + noise).clamp(0, 255).byte()), lambda: None)
    assert other is None or len(other) < 0.1 * len(carried())


def test_what_bends_is_hardly_carried() -> None:
    clip = filmed("bending")[1]
    found = find_carried_pixels(clip, lambda: None)
    shares = [0 if of is None else len(of) / int(c.motion.sum()) for of, c in ((found, clip), (carried(), filmed()[1]))]  # type: ignore[union-attr]
    assert shares[0] < 0.2 * shares[1]


def test_equal_clips_are_carried_equally() -> None:
    """A run that goes on after a kill finds anew what it had."""
    again = find_carried_pixels(filmed()[1], lambda: None)
    assert again is not None
    for name, value in vars(carried()).items():
        assert torch.equal(value, getattr(again, name)), name


def test_a_stop_is_heeded() -> None:
    def stop() -> None:
        raise Cancelled("stopped", "")

    with pytest.raises(Cancelled):
        find_carried_pixels(filmed()[1], stop)
