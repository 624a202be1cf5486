"""Rendering of rays and images, on a scene whose answer is known: an opaque wall."""

import pytest
import torch
from torch import Tensor

from dpdy_core.config import FieldsConfig, GridConfig, SamplingConfig
from dpdy_core.errors import Cancelled
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.render.renderer import render_camera, render_rays
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.scene import FieldSamples, Scene

WALL = 2.0  # the static wall fills z <= -WALL
GRID = GridConfig(levels=2, log2_table=8, base_resolution=2, max_resolution=4)


class WallScene(Scene):
    """A red wall behind the plane z = -WALL; with `mover` a green one nearer by half while time is above one half."""

    def __init__(self, mover: bool = False) -> None:
        fields = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=8)
        sampling = SamplingConfig(proposal=128, fine=64)
        bounds = Bounds((0.0, 0.0, -1.0), 1.0, 0.2, 20.0)
        super().__init__(fields, sampling, bounds, 4, "torch", torch.Generator().manual_seed(0))
        self.mover = mover

    def sample(self, points: Tensor, directions: Tensor, times: Tensor) -> FieldSamples:  # noqa: ARG002
        wall = (points[..., 2] <= -WALL).float() * 1e4
        moves = (points[..., 2] <= -WALL / 2) & (times[:, None] > 0.5) & (points[..., 2] > -WALL) & self.mover
        red, green = points.new_tensor([1.0, 0.0, 0.0]), points.new_tensor([0.0, 1.0, 0.0])
        moving = moves.float() * 1e4
        return FieldSamples(wall, red.expand_as(points), moving, green.expand_as(points), wall * 0, wall * 0)

    def propose(self, points: Tensor, times: Tensor) -> Tensor:
        samples = self.sample(points, points[:, 0], times)
        return samples.static_density + samples.dynamic_density


def camera(size: int = 8) -> Cameras:
    pose = torch.eye(4)[None, :3]
    return Cameras(pose, torch.full((1, 2), float(size)), torch.full((1, 2), size / 2), size, size)


def test_depth_is_planar_and_in_world_units() -> None:
    image = render_camera(WallScene(), camera(), 0, 0.0, chunk=1024)
    torch.testing.assert_close(image.depth, torch.full((8, 8), WALL), atol=0.03, rtol=0)
    torch.testing.assert_close(image.opacity, torch.ones(8, 8), atol=1e-3, rtol=0)
    torch.testing.assert_close(image.colour[..., 0], torch.ones(8, 8), atol=1e-3, rtol=0)


def test_time_switches_the_mover_on() -> None:
    scene = WallScene(mover=True)
    before, after = (render_camera(scene, camera(), 0, t, chunk=1024) for t in (0.0, 1.0))
    assert float(before.dynamic.max()) == 0
    assert float(after.dynamic.min()) > 0.99
    torch.testing.assert_close(after.depth, torch.full((8, 8), WALL / 2), atol=0.03, rtol=0)


def test_chunks_do_not_show() -> None:
    scene = WallScene()
    whole, pieces = (render_camera(scene, camera(), 0, 0.0, chunk=c) for c in (1024, 7))
    torch.testing.assert_close(whole.colour, pieces.colour)
    torch.testing.assert_close(whole.depth, pieces.depth)


def test_rendering_can_be_stopped_between_chunks() -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("stopped on request")

    with pytest.raises(Cancelled):
        render_camera(WallScene(), camera(), 0, 0.0, chunk=16, check=check)
    assert len(calls) == 3


def test_static_alone_ignores_the_mover() -> None:
    origins, directions = (rays.reshape(-1, 3) for rays in camera().image_rays(0))
    times = torch.ones(len(origins))
    background = torch.zeros(3)
    rendering = render_rays(WallScene(mover=True), origins, directions, times, background, static_alone=True)
    assert rendering.static_colour is not None
    assert float(rendering.colour[:, 1].min()) > 0.99
    assert float(rendering.static_colour[:, 1].max()) == 0


def test_background_shows_where_nothing_is() -> None:
    scene = WallScene()
    origins = torch.zeros(5, 3)
    away = torch.tensor([[0.0, 0.0, 1.0]]).expand(5, 3)
    background = torch.tensor([0.1, 0.2, 0.3])
    rendering = render_rays(scene, origins, away, torch.zeros(5), background)
    torch.testing.assert_close(rendering.colour, background.expand(5, 3))
    torch.testing.assert_close(rendering.disparity, torch.full((5,), 1 / scene.bounds.far))


def test_jitter_needs_a_generator_and_follows_its_seed() -> None:
    scene = WallScene()
    origins, directions = (rays.reshape(-1, 3) for rays in camera().image_rays(0))

    def edges(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return render_rays(scene, origins, directions, torch.zeros(64), torch.zeros(3), generator).edges

    assert torch.equal(edges(None), edges(None))
    assert torch.equal(edges(1), edges(1))
    assert not torch.equal(edges(1), edges(2))


def test_gradients_reach_every_parameter_of_a_real_scene() -> None:
    fields = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=8)
    bounds = Bounds((0.0, 0.0, -1.0), 1.0, 0.2, 20.0)
    scene = Scene(fields, SamplingConfig(proposal=8, fine=8), bounds, 4, "torch", torch.Generator().manual_seed(0))
    origins, directions = (rays.reshape(-1, 3) for rays in camera().image_rays(0))
    rendering = render_rays(scene, origins, directions, torch.full((64,), 0.5), torch.zeros(3))
    (rendering.colour.sum() + rendering.proposal_weights.square().sum()).backward()
    without = [name for name, p in scene.named_parameters() if p.grad is None]
    assert without == []
