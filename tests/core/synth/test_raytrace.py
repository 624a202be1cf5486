"""Culling, nearest hits and shadows against every ray tried on every piece."""

import pytest
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.synth import shading
from dpdy_core.synth.raytrace import PieceList, openness, shadowed, squares, trace
from dpdy_core.synth.shading import draw
from dpdy_core.synth.shapes import GROUND, ROOM, SHAPES
from dpdy_core.synth.stills import draw_stills
from dpdy_core.synth.world import FAR, World


def brute_force(world: World, scene: int, origin: Tensor, direction: Tensor) -> Tensor:
    """(P, R) parameters at which rays (3, R) meet each piece of a scene."""
    pieces = world.pieces
    rows = []
    for place, kind in enumerate(pieces.shape[scene].tolist()):
        if kind < 0:
            rows.append(torch.full_like(direction[0], torch.inf))
            continue
        turn = pieces.rotation[scene, place].T
        own = turn @ (origin - pieces.position[scene, place][:, None])
        size = pieces.size[scene, place][:, None].expand(3, direction.shape[1])
        rows.append(SHAPES[kind].hit(own.expand_as(direction), turn @ direction, size))
    return torch.stack(rows)


def random_world(split: str, count: int = 12, size: int = 24) -> tuple[World, Cameras]:
    stills = draw_stills(count, size, torch.Generator().manual_seed(5), split)  # type: ignore[arg-type]
    return stills.world, stills.cameras


def test_trace_finds_the_nearest_piece_of_all() -> None:
    world, cameras = random_world("held-out")
    directions = torch.stack([cameras.image_rays(i)[1].reshape(-1, 3).T for i in range(len(world))])
    pieces = PieceList(world)
    hits = trace(pieces, cameras.centres, directions)
    depth, piece = hits.depth.view(len(world), -1), hits.piece.view(len(world), -1)
    for scene in range(len(world)):
        expected = brute_force(world, scene, cameras.centres[scene][:, None], directions[scene])
        nearest, place = expected.min(0)
        torch.testing.assert_close(depth[scene], nearest, rtol=1e-4, atol=1e-4)
        met = torch.isfinite(nearest)
        found = pieces.place[piece[scene][met]]
        assert (found // pieces.places == scene).all()
        assert (found % pieces.places == place[met]).float().mean() > 0.999
        assert (piece[scene][~met] == -1).all()


def test_shadows_are_those_of_every_solid_piece() -> None:
    world, cameras = random_world("held-out")
    images = draw(world, cameras)
    pieces = PieceList(world)
    directions = torch.stack([cameras.image_rays(i)[1].reshape(-1, 3).T for i in range(len(world))])
    point = cameras.centres[..., None] + images.depth.flatten(1)[:, None] * directions
    point = point + torch.tensor([0.0, 0.0, 0.05])[:, None]
    sun = world.light.direction[..., None].expand_as(point).contiguous()
    wanted = (images.place.flatten(1) >= 0) & (torch.arange(point.shape[2]) % 3 > 0)
    dark = shadowed(pieces, point, sun, squares(pieces, point), wanted)
    assert not dark[~wanted].any()
    assert 0.02 < dark[wanted].float().mean() < 0.6
    for scene in range(len(world)):
        met = torch.isfinite(brute_force(world, scene, point[scene], sun[scene]))
        solid = (world.pieces.shape[scene] != ROOM) & (world.pieces.shape[scene] != GROUND)
        expected = met[solid].any(0) & wanted[scene]
        assert (dark[scene] == expected).float().mean() > 0.998


def test_openness_falls_towards_an_object_and_never_below_zero() -> None:
    world, _ = random_world("train")
    pieces = PieceList(world)
    ball = world.pieces.position[:, 1]  # the first object's first piece
    normal = torch.tensor([0.0, 0.0, 1.0])[:, None].expand(len(world), 3, 3).contiguous()
    away = torch.tensor([0.0, 0.5, 50.0])
    point = torch.stack([torch.stack([ball[:, 0] + d, ball[:, 1], torch.zeros(len(ball))], 1) for d in away], 2)
    share = openness(pieces, point, normal, squares(pieces, point))
    assert (share >= 0).all()
    assert (share <= 1).all()
    assert (share[:, 2] > 0.995).all()
    assert (share[:, 0] < share[:, 2]).all()


def test_bands_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    world, cameras = random_world("train", 4, 32)
    whole = draw(world, cameras)
    monkeypatch.setitem(shading.CHUNK, "cpu", 100)
    bands = draw(world, cameras)
    torch.testing.assert_close(bands.rgb, whole.rgb, atol=2e-3, rtol=0)
    torch.testing.assert_close(bands.depth, whole.depth, rtol=1e-5, atol=1e-5)
    assert (bands.place == whole.place).float().mean() > 0.999


def test_refining_few_pixels_is_close_to_refining_all() -> None:
    world, cameras = random_world("train", 8, 64)
    full, quick = draw(world, cameras), draw(world, cameras, 0.3)
    assert torch.equal(full.depth, quick.depth)
    single = draw(world, cameras, 0.01)
    errors = [float(((image.rgb - full.rgb) ** 2).mean()) for image in (quick, single)]
    assert errors[0] < 3e-4  # 35 dB
    assert errors[0] < 0.2 * errors[1]


def test_sky_is_far_and_ground_is_near() -> None:
    world, cameras = random_world("train", 24, 24)
    images = draw(world, cameras)
    sky = images.place < 0
    assert sky.any()
    assert (images.depth[:, 0][sky] == FAR).all()
    assert not (sky.flatten(1).any(1) & world.in_room).any()
    assert (images.depth > 0).all()
    assert torch.isfinite(images.rgb).all()
    assert images.rgb.min() >= 0
    assert images.rgb.max() <= 1
