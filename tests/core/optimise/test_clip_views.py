"""Clips that leave the input's camera: what they show lines up with what their cameras see."""

from dataclasses import replace

import pytest
import torch
from optimise_scenes import cast, pose
from torch.nn.functional import avg_pool2d

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.clip_views import (
    ANCHORS,
    ClipViews,
    blend_poses,
    departure,
    square,
    square_depth,
    square_images,
)
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.scene.contraction import Bounds

COUNT = 7
BOUNDS = Bounds((0.0, 0.0, 0.0), 1.5, 0.2, 8.0)


def filmed(width=97, height=72, depth=True):
    """A clip of the closed-form scene, its principal point off the centre."""
    poses = torch.stack([pose(k, COUNT) for k in range(COUNT)])
    focal, principal = torch.tensor([[90.0, 80.0]]), torch.tensor([[width / 2 + 3, height / 2 - 2]])
    cameras = Cameras(poses, focal.expand(COUNT, 2), principal.expand(COUNT, 2), width, height)
    times = torch.linspace(0, 1, COUNT)
    shots = [cast(*cameras.image_rays(k), float(times[k])) for k in range(COUNT)]
    images = (torch.stack([s[0] for s in shots]) * 255).round().byte()
    planar = torch.stack([s[1] for s in shots]).float()
    names = [str(k) for k in range(COUNT)]
    valid = torch.ones(images.shape[:3], dtype=torch.bool)
    return Clip(names, times, cameras, images, valid, planar if depth else None, None, None)


def clips(clip, size=36, frames=5, real=2):
    return ClipViews(clip, NovelViews(clip, BOUNDS, 16), size, frames, real)


@pytest.mark.parametrize("shape", [(97, 72), (60, 81), (64, 64)])
@pytest.mark.parametrize("size", [36, 24])
def test_the_cut_frame_is_what_the_square_camera_sees(shape, size):
    """Against closed-form ray casting with the square camera, and nearer to it than when shifted by half a pixel."""
    clip = filmed(*shape)
    cameras, images = square(clip.cameras, size), square_images(clip.images, size)
    depth = square_depth(clip.depth, size)
    assert (cameras.width, cameras.height) == (size, size)

    def error(shift):
        fine = square(clip.cameras, 4 * size)
        moved = replace(fine, principal=fine.principal + 4 * shift)
        colour = cast(*moved.image_rays(2), float(clip.times[2]))[0].permute(2, 0, 1)
        return float((images[2] - avg_pool2d(colour, 4)).square().mean())

    still = error(torch.zeros(2))
    assert still < 3e-4
    for shift in ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)):
        assert error(torch.tensor(shift)) > 1.3 * still
    planar = cast(*cameras.image_rays(2), float(clip.times[2]))[1]
    assert float(((depth[2, 0] - planar).abs() / planar).median()) < 0.02


def test_points_project_alike_into_the_frame_and_its_cut():
    cameras = filmed(97, 72).cameras
    points = torch.randn((50, 3), generator=torch.Generator().manual_seed(0)) * 0.3
    frame = torch.full((50,), 3)
    whole, depth = cameras.project(points, frame)
    cut, same = square(cameras, 48).project(points, frame)
    torch.testing.assert_close(same, depth)
    torch.testing.assert_close(cut, (whole - torch.tensor([12.0, 0.0])) * 48 / 72)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_clip_holds_the_inputs_cameras_at_its_anchor_and_leaves_them_smoothly(anchor):
    clip = filmed()
    sampler = clips(clip)
    view = sampler.draw(anchor, 1.0, torch.Generator().manual_seed(3))
    assert view.real == {"start": [0, 1], "end": [3, 4], "both": [0, 1, 3, 4]}[anchor]
    start = int(view.frames[0])
    assert view.frames.tolist() == list(range(start, start + 5))
    assert torch.equal(view.times, clip.times[start : start + 5])
    inputs = square(clip.cameras, 36)[view.frames]
    for k in range(5):
        same = torch.equal(view.cameras.camera_to_world[k], inputs.camera_to_world[k])
        assert same == (k in view.real)
    assert torch.equal(view.cameras.focal, inputs.focal)
    assert torch.equal(view.cameras.principal, inputs.principal)
    assert torch.equal(view.colour, square_images(clip.images[view.frames], 36))
    rotation = view.cameras.camera_to_world[:, :, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(5))


def test_the_far_end_is_a_novel_camera():
    clip = filmed()
    sampler = clips(clip)
    view = sampler.draw("start", 0.5, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    torch.randint(COUNT - 4, (1,), generator=generator)
    goal, _ = sampler.novel.draw(1, 0.5, generator)
    torch.testing.assert_close(view.cameras.camera_to_world[4], goal.camera_to_world[0], atol=1e-5, rtol=1e-5)


def test_every_start_is_drawn_and_short_clips_are_taken_whole():
    clip = filmed()
    sampler = clips(clip)
    generator = torch.Generator().manual_seed(0)
    assert {int(sampler.draw("start", 0.0, generator).frames[0]) for _ in range(40)} == {0, 1, 2}
    assert clips(clip, frames=16).draw("both", 0.0, generator).frames.tolist() == list(range(COUNT))


def test_corrected_cameras_take_the_place_of_the_clips_without_a_gradient():
    clip = filmed()
    shift = torch.tensor([0.1, 0.0, 0.0]).requires_grad_(True)
    poses = clip.cameras.camera_to_world
    moved = replace(clip.cameras, camera_to_world=torch.cat([poses[..., :3], (poses[..., 3] + shift)[..., None]], -1))
    view = clips(clip).draw("both", 1.0, torch.Generator().manual_seed(3), moved)
    for k in view.real:
        assert torch.equal(view.cameras.camera_to_world[k], moved.camera_to_world[view.frames[k]])
    assert not view.cameras.camera_to_world.requires_grad


def test_missing_depth_is_told_apart():
    assert clips(filmed(depth=False)).draw("end", 0.0, torch.Generator()).depth is None
    holes = filmed()
    assert clips(holes).has_all_depth
    holes.depth[:, :5] = 0
    assert not clips(holes).has_all_depth


def test_departures_in_closed_form():
    assert departure(4, 2, "start") == [0.0, 0.0, 0.5, 1.0]
    assert departure(4, 2, "end") == [1.0, 0.5, 0.0, 0.0]
    assert departure(5, 1, "both") == pytest.approx([0, 0.5**0.5, 1, 0.5**0.5, 0])
    for anchor in ANCHORS:
        for frames in (1, 2, 3, 8):
            shares = departure(frames, 16, anchor)
            assert len(shares) == frames
            assert any(share > 0 for share in shares)


def test_blended_poses_turn_evenly():
    first, second = (
        look_at(torch.tensor([x, 0.0, 2.0]), torch.tensor([x, 0.0, 0.0]), torch.tensor([0.0, 1, 0])) for x in (0.0, 1.0)
    )
    half = blend_poses(first[None], second[None], torch.tensor([[0.5]]))[0]
    torch.testing.assert_close(
        half, look_at(torch.tensor([0.5, 0, 2]), torch.tensor([0.5, 0, 0]), torch.tensor([0.0, 1, 0]))
    )
    turned = look_at(
        torch.tensor([0.0, 0.0, 2.0]), torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 1, 0])
    )  # by 45 degrees
    middle = blend_poses(first[None], turned[None], torch.tensor([[0.5]]))[0]
    angles = [torch.acos((-middle[:, 2] * -p[:, 2]).sum().clamp(-1, 1)) for p in (first, turned)]
    assert float(angles[0]) == pytest.approx(float(angles[1]), abs=1e-4)
    assert float(angles[0]) == pytest.approx(torch.pi / 8, abs=1e-4)
