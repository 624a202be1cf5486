"""Rigid pieces of movers and their motion, against the exact motion of rendered scenes."""

import numpy as np
import pytest
import torch

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.pinhole import pinholes
from dpdy_core.ingest.rigid_pieces import RigidPieces, find_rigid_pieces, rigid_fit
from dpdy_core.synth.capture import cameras_around, rgb_bytes
from dpdy_core.synth.covisibility import carried
from dpdy_core.synth.scenes import build_scene
from dpdy_core.synth.shading import Images, draw
from dpdy_core.synth.world import World

FRAMES, WIDTH, HEIGHT = 5, 192, 144
TIMES = torch.linspace(0, 0.14, FRAMES)  # of a clip of about thirty frames


def rendered(name: str, seed: int = 3) -> tuple[World, Cameras, Images, np.ndarray]:
    scene = build_scene(name, seed)
    world = scene.at(TIMES)
    cameras = cameras_around(-90 + 30 * (TIMES - 0.5), torch.full((FRAMES,), 18.0), WIDTH, HEIGHT)
    images = draw(world, cameras)
    return world, cameras, images, scene.moving[world.pieces.owner[0]][images.place].numpy()


def pieces_of(cameras: Cameras, images: Images, moving: np.ndarray) -> RigidPieces:
    return find_rigid_pieces(rgb_bytes(images.rgb), images.depth[:, 0].numpy(), moving, cameras, 4, lambda: None)


def test_least_squares_finds_the_motion_that_was_applied() -> None:
    dice = np.random.default_rng(0)
    points = dice.normal(size=(7, 20, 3))
    turn, upper = np.linalg.qr(dice.normal(size=(7, 3, 3)))
    turn *= np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None]
    turn[np.linalg.det(turn) < 0] *= -1
    shift = dice.normal(size=(7, 3))
    motion = rigid_fit(points, np.einsum("mij,mnj->mni", turn, points) + shift[:, None])
    np.testing.assert_allclose(motion[:, :3, :3], turn, atol=1e-12)
    np.testing.assert_allclose(motion[:, :3, 3], shift, atol=1e-12)


def test_a_mirrored_cloud_gets_a_rotation_all_the_same() -> None:
    points = np.random.default_rng(1).normal(size=(1, 30, 3))
    motion = rigid_fit(points, points * [1, 1, -1])
    assert np.linalg.det(motion[0, :3, :3]) == pytest.approx(1)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0), (0, 4), (4, 1)])
def test_pieces_are_carried_to_where_they_truly_are(source: int, target: int) -> None:
    """In pixels of the source frame: in the median to one and a half, after travelling up to ten."""
    world, cameras, images, moving = rendered("rigid")
    pieces, depth = pieces_of(cameras, images, moving), images.depth[source, 0].numpy()
    off, travelled = [], []
    for number, step in pieces.motions(source, target).items():
        row, column = np.nonzero(pieces.numbers[source] == number)
        points = pinholes(cameras)[source].lift(np.column_stack([column, row]), depth[row, column])
        place = images.place[source][row, column]
        true = carried(world.pieces, source, torch.tensor([target]), place, torch.from_numpy(points).float())[0].numpy()
        found = points @ step.motion[:3, :3].T + step.motion[:3, 3]
        pixel = depth[row, column] / float(cameras.focal[0, 0])
        off.append(np.linalg.norm(true - found, axis=1) / pixel)
        travelled.append(np.linalg.norm(true - points, axis=1) / pixel)
    far, near = np.concatenate(travelled), np.concatenate(off)
    assert len(near) > 0.4 * moving[source].sum()
    assert np.median(near) < 1.5
    assert np.median(near) < 0.4 * np.median(far)


def test_a_still_frame_has_no_pieces_and_no_steps() -> None:
    _, cameras, images, moving = rendered("rigid")
    pieces = pieces_of(cameras, images, np.zeros_like(moving))
    assert pieces.numbers.max() == 0
    assert pieces.motions(0, 1) == {}
