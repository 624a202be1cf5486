"""Clips: determinism, the still scene in their middle, rigid motion, everything within its room."""

import pytest
import torch
from torch import Tensor

from dpdy_core.synth.clips import CAMERA_GAP, film, move, pivot_of, sample_clips
from dpdy_core.synth.dataset import REFINED
from dpdy_core.synth.objects import Pieces
from dpdy_core.synth.shading import draw
from dpdy_core.synth.stills import MAX_OBJECTS, Dice, Split, Stills, draw_stills

SIZE, FRAMES = 24, 5


@pytest.fixture(scope="module")
def stills() -> Stills:
    return draw_stills(300, SIZE, torch.Generator().manual_seed(1), "train")


@pytest.fixture(scope="module")
def pieces(stills: Stills) -> Pieces:
    dice = Dice(torch.Generator().manual_seed(2))
    return move(dice, stills, pivot_of(stills), torch.linspace(-0.5, 0.5, FRAMES))


def by_frame(tensor: Tensor) -> Tensor:
    return tensor.unflatten(0, (-1, FRAMES))


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_clips_have_the_promised_shapes_and_follow_the_seed(split: Split) -> None:
    first, again, other = (
        sample_clips(4, FRAMES, SIZE, torch.Generator().manual_seed(s), "cpu", split) for s in (3, 3, 4)
    )
    assert first.rgb.shape == (4, FRAMES, 3, SIZE, SIZE)
    assert first.depth.shape == (4, FRAMES, 1, SIZE, SIZE)
    assert len(first.captions) == 4
    assert first.rgb.min() >= 0
    assert first.rgb.max() <= 1
    assert (first.depth > 0.05).all()
    assert torch.isfinite(first.depth).all()
    assert torch.equal(first.rgb, again.rgb)
    assert first.captions == again.captions
    assert not torch.equal(first.rgb, other.rgb)


def test_the_middle_of_a_clip_is_the_still_scene() -> None:
    clips = sample_clips(5, 3, SIZE, torch.Generator().manual_seed(7), "cpu", "train")
    stills = draw_stills(5, SIZE, torch.Generator().manual_seed(7), "train")
    image = draw(stills.world, stills.cameras, REFINED)
    assert (clips.rgb[:, 1] - image.rgb).abs().mean() < 1e-3
    assert (clips.depth[:, 1] - image.depth).abs().median() < 1e-4
    change = (clips.rgb[:, 0] - clips.rgb[:, 2]).abs().flatten(1).mean(1)
    assert change.median() > 0.005


def test_objects_move_rigidly_and_the_background_not_at_all(stills: Stills, pieces: Pieces) -> None:
    position, rotation = by_frame(pieces.position), by_frame(pieces.rotation)
    identity = (rotation @ rotation.transpose(-1, -2) - torch.eye(3)).abs().amax()
    assert identity < 1e-5
    moved = 0
    for owner in range(MAX_OBJECTS + 1):
        mine = (stills.world.pieces.owner == owner) & (stills.world.pieces.shape >= 0)
        where = torch.where(mine[:, None, :, None], position, torch.zeros(3))
        step = (where - where[:, :1]).norm(dim=-1).amax((1, 2))
        if owner == 0:
            assert step.max() == 0
        moved += int((step > 1e-3).sum())
        together = mine[:, None, :, None] & mine[:, None, None, :]
        between = torch.where(together, torch.cdist(position, position), 0.0)
        torch.testing.assert_close(between, between[:, :1].expand_as(between), atol=1e-3, rtol=0)
    objects = int((stills.kind >= 0).sum())
    assert 0.2 * objects < moved < 0.45 * objects
    assert position[..., 2].amin() >= by_frame(pieces.position)[:, FRAMES // 2, :, 2].amin() - 1e-5  # none sinks


def test_cameras_move_smoothly_and_stay_in_their_rooms(stills: Stills) -> None:
    u = torch.linspace(-0.5, 0.5, FRAMES)
    cameras = film(Dice(torch.Generator().manual_seed(5)), stills, pivot_of(stills), u)
    turn, centre = by_frame(cameras.camera_to_world[..., :3]), by_frame(cameras.centres)
    assert (turn @ turn.transpose(-1, -2) - torch.eye(3)).abs().amax() < 1e-5
    torch.testing.assert_close(centre[:, FRAMES // 2], stills.cameras.centres, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turn[:, FRAMES // 2], stills.cameras.camera_to_world[..., :3], atol=1e-5, rtol=0)
    static = ((centre - centre[:, :1]).abs().amax((1, 2)) == 0) & ((turn - turn[:, :1]).abs().amax((1, 2, 3)) == 0)
    assert 0.1 < static.float().mean() < 0.3
    angle = torch.einsum("bfij,bgij->bfg", turn, turn).sub(1).div(2).clamp(-1, 1).acos()
    assert angle.amax().rad2deg() < 36
    assert centre[..., 2].min() >= 0.1
    room = stills.world.pieces
    own = torch.einsum("bji,bfj->bfi", room.rotation[:, 0], centre - room.position[:, :1])
    clearance = (room.size[:, None, 0] - own.abs())[..., :2].amin((1, 2))[stills.indoors]
    assert clearance.min() >= CAMERA_GAP - 1e-4
