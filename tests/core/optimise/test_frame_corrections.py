"""Corrections of cameras and exposures: closed forms, finite differences, and a perturbed camera that comes back."""

from pathlib import Path

import pytest
import torch
from optimise_scenes import tiny_config, write_capture
from torch import Tensor

from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.config import FieldsConfig, GridConfig, SamplingConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise.camera_corrections import CameraCorrections, gauge_free, load_corrections, refined, rotation
from dpdy_core.optimise.exposure import Exposure
from dpdy_core.optimise.loop import optimise_scene
from dpdy_core.optimise.ray_batch import TrainingRays
from dpdy_core.output.export import export_run
from dpdy_core.progress import Event, Reporter
from dpdy_core.render.renderer import render_rays
from dpdy_core.rundir import read_json
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.scene import FieldSamples, Scene

GRID = GridConfig(levels=2, log2_table=10, base_resolution=3, max_resolution=6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def skew(turn: Tensor) -> Tensor:
    x, y, z = turn.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)


def cameras_on_an_arc(count: int = 5) -> Cameras:
    angle = torch.linspace(-0.4, 0.4, count, dtype=torch.float64)
    turn = torch.stack([angle * 0, angle, angle * 0], dim=-1)
    centre = torch.stack([2 * angle.sin(), 0.1 * angle.cos(), 2 * angle.cos()], dim=-1)
    pose = torch.cat([rotation(turn), centre[..., None]], dim=-1)
    return Cameras(pose, pose.new_full((count, 2), 8.0), pose.new_full((count, 2), 8.0), 16, 16)


class Marble(Scene):
    """A hilly wall of smooth colours, soft enough for gradients to see across it."""

    def __init__(self) -> None:
        fields = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=8)
        bounds = Bounds((0.0, 0.0, 0.0), 1.0, 0.5, 6.0)
        sampling = SamplingConfig(proposal=32, fine=48)
        super().__init__(fields, sampling, bounds, 5, "torch", torch.Generator().manual_seed(0))

    def sample(self, points: Tensor, directions: Tensor, times: Tensor) -> FieldSamples:
        del directions, times
        x, y, z = points.unbind(-1)
        hills = 0.5 * torch.sin(3 * x) * torch.sin(3 * y + 1)
        density = 30 * torch.sigmoid((hills - z) / 0.05)
        colour = 0.5 + 0.4 * torch.sin(8 * points + points.roll(1, dims=-1))
        none = torch.zeros_like(density)
        return FieldSamples(density, colour, none, colour, none, none)

    def propose(self, points: Tensor, times: Tensor) -> Tensor:
        return self.sample(points, points[:, 0], times).static_density


class EvenSamples(Scene):
    """The real fields behind a proposal that is the same everywhere: samples do not move with the camera."""

    def propose(self, points: Tensor, times: Tensor) -> Tensor:
        del times
        return torch.ones_like(points[..., 0])


def shown(scene: Scene, cameras: Cameras) -> Tensor:
    """(T * 64, 3) colours of a lattice of pixels of all cameras."""
    y, x = torch.meshgrid(torch.arange(0, 16, 2), torch.arange(0, 16, 2), indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2).to(cameras.focal).repeat(len(cameras), 1) + 0.5
    camera = torch.arange(len(cameras)).repeat_interleave(64)
    origins, directions = cameras.rays(camera, pixels)
    return render_rays(scene, origins, directions, origins[:, 0] * 0 + 0.3, origins.new_zeros(3)).colour


def test_rotation_is_the_matrix_exponential() -> None:
    turn = torch.cat([normal(6, 3), 1e-5 * normal(3, 3), torch.zeros(1, 3, dtype=torch.float64)])
    expected = torch.stack([torch.linalg.matrix_exp(skew(v)) for v in turn])
    torch.testing.assert_close(rotation(turn), expected, atol=1e-9, rtol=0)
    assert torch.autograd.gradcheck(rotation, (normal(4, 3, seed=1).requires_grad_(),))
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    rotation(zero)[0, 2, 1].backward()
    assert zero.grad is not None
    torch.testing.assert_close(zero.grad, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))


def test_what_all_cameras_share_is_no_correction() -> None:
    cameras = cameras_on_an_arc()
    corrections = CameraCorrections(cameras, unit=2.0)
    centred = cameras.centres - cameras.centres.mean(dim=0)
    common = torch.tensor([0.02, -0.01, 0.03, 0.1, 0.2, -0.1], dtype=torch.float64)
    corrections.twist.data = common + torch.cat([torch.zeros_like(centred), 0.3 * centred], dim=-1)
    torch.testing.assert_close(corrections.correct(cameras).camera_to_world, cameras.camera_to_world)
    own = normal(5, 6, seed=2)
    once = gauge_free(own[:, :3], own[:, 3:], cameras.centres)
    torch.testing.assert_close(gauge_free(*once, cameras.centres), once)


def test_numbers_say_how_far_in_degrees_and_world_units() -> None:
    cameras = cameras_on_an_arc(2)
    corrections = CameraCorrections(cameras, unit=3.0)
    assert torch.equal(corrections.correct(cameras).camera_to_world, cameras.camera_to_world)
    corrections.twist.data[:, 1] = torch.tensor([0.1, -0.1])
    corrections.twist.data[:, 4] = torch.tensor([0.2, -0.2])  # across the path: growth takes nothing of it
    values = corrections.numbers()
    assert float(values["camera_degrees"]) == pytest.approx(5.729578)
    assert float(values["camera_shift"]) == pytest.approx(0.6)
    assert float(corrections.penalty().detach()) == pytest.approx(0.01 + 0.04)


def test_gradients_of_real_fields_to_the_cameras_match_finite_differences() -> None:
    fields = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=8)
    bounds, sampling = Bounds((0.0, 0.0, 0.0), 1.0, 0.5, 6.0), SamplingConfig(proposal=4, fine=6)
    scene = EvenSamples(fields, sampling, bounds, 5, "torch", torch.Generator().manual_seed(0)).double()
    for encoder in scene.encoders():
        encoder.table.data = normal(*encoder.table.shape, seed=3)
    cameras = cameras_on_an_arc(3)
    corrections = CameraCorrections(cameras, unit=1.0)
    corrections.twist.data = 0.01 * normal(3, 6, seed=4)
    weight = normal(3 * 64, 3, seed=5)

    def loss() -> Tensor:
        return (shown(scene, corrections.correct(cameras)) * weight).sum()

    loss().backward()
    analytic = corrections.twist.grad
    assert analytic is not None
    assert float(analytic.abs().min()) > 1e-6
    numeric = torch.zeros_like(analytic)
    with torch.no_grad():
        for place in range(18):
            for sign in (1, -1):
                corrections.twist.view(-1)[place] += sign * 1e-7
                numeric.view(-1)[place] += sign * loss() / 2e-7
                corrections.twist.view(-1)[place] -= sign * 1e-7
    torch.testing.assert_close(analytic, numeric, atol=1e-4, rtol=1e-4)


def test_perturbed_cameras_are_pulled_back() -> None:
    """Cameras that are wrong by a degree and a few hundredths find back to the pictures of the true ones."""
    scene, true = Marble(), cameras_on_an_arc()
    true = Cameras(true.camera_to_world.float(), true.focal.float(), true.principal.float(), 16, 16)
    turn, shift = gauge_free(0.015 * normal(5, 3, seed=6), 0.03 * normal(5, 3, seed=7), true.centres)
    wrong = CameraCorrections(true, unit=1.0)
    wrong.twist.data = torch.cat([turn, shift], dim=-1).float()
    start = Cameras(wrong.correct(true).camera_to_world.detach(), true.focal, true.principal, 16, 16)
    pictures = shown(scene, true).detach()
    corrections = CameraCorrections(start, unit=1.0)
    optimiser = torch.optim.Adam([corrections.twist], lr=1e-2)
    for step in range(120):
        optimiser.param_groups[0]["lr"] = 1e-2 * 0.02 ** (step / 120)
        optimiser.zero_grad()
        (shown(scene, corrections.correct(start)) - pictures).square().mean().backward()
        optimiser.step()

    @torch.no_grad()
    def error(cameras: Cameras) -> tuple[float, float]:
        turned = cameras.camera_to_world[:, :, :3].transpose(1, 2) @ true.camera_to_world[:, :, :3]
        cosine = (turned.diagonal(dim1=1, dim2=2).sum(dim=-1) - 1) / 2
        moved = (cameras.centres - true.centres).norm(dim=-1)
        return float(torch.rad2deg(cosine.clamp(max=1).acos()).mean()), float(moved.mean())

    (degrees_before, moved_before), (degrees, moved) = error(start), error(corrections.correct(start))
    assert degrees_before > 1.0
    assert degrees < 0.2 * degrees_before
    assert moved < 0.2 * moved_before


@torch.no_grad()
def gains_of(exposure: Exposure) -> Tensor:
    return exposure.gains()


def test_gains_are_found_up_to_their_mean() -> None:
    """Least squares on gains alone has the closed form of the true gains over their geometric mean."""
    true = torch.tensor([[0.5, 1.0, 2.0], [1.0, 1.2, 0.8], [2.0, 0.9, 1.1]])
    base = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(0))
    pictures = base * (true / true.log().mean(dim=0).exp())[:, None]
    exposure = Exposure(3)
    assert torch.equal(gains_of(exposure), torch.ones(3, 3))
    optimiser = torch.optim.Adam(exposure.parameters(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        (base * exposure.gains()[:, None] - pictures).square().mean().backward()
        optimiser.step()
    gains = gains_of(exposure)
    torch.testing.assert_close(gains, true / true.log().mean(dim=0).exp(), atol=1e-3, rtol=0)
    torch.testing.assert_close(gains.log().mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)
    assert float(exposure.numbers()["exposure_factor"]) == pytest.approx(float(gains.log().abs().max().exp()))


def test_reaimed_rays_follow_the_cameras_and_their_targets_do_not(tmp_path: Path) -> None:
    clip = load_clip(write_capture(tmp_path).capture, "train", 24)
    assert clip is not None
    corrections = CameraCorrections(clip.cameras, unit=1.0)
    rays, generator = TrainingRays(clip, reaimed=0.5), torch.Generator().manual_seed(0)
    batch = rays.draw(64, generator, corrections.correct(clip.cameras))
    plain = rays.draw(64, torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch.directions, plain.directions)
    assert not batch.depth.requires_grad
    for part in (slice(0, 32), slice(32, 64)):
        corrections.twist.grad = None
        (batch.directions[part].sum() + batch.origins[part].sum()).backward(retain_graph=True)
        assert corrections.twist.grad is not None
        assert float(corrections.twist.grad.abs().max()) > 0


def test_a_run_keeps_its_corrections_and_uses_them(tmp_path: Path) -> None:
    run = write_capture(tmp_path / "run")
    events: list[Event] = []
    config = tiny_config(refine_cameras=True, exposure=True, camera_learning_rate=0.01)
    run.write_config(config, tmp_path, {})
    optimise_scene(run, config, Reporter(events.append, interval=0.0))
    checkpoint, clip = newest_checkpoint(run.scene), load_clip(run.capture, "train", 24)
    assert checkpoint is not None
    assert clip is not None
    assert float(checkpoint.tensors["frames.exposure.log_gain"].abs().max()) > 0
    corrections = load_corrections(run.scene, clip)
    assert corrections is not None
    assert torch.equal(corrections.twist, checkpoint.tensors["frames.cameras.twist"])
    moved = refined(clip, run.scene).cameras
    assert not torch.equal(moved.camera_to_world, clip.cameras.camera_to_world)
    exported = read_json(export_run(run, "transforms", tmp_path / "out"))
    poses = {frame["file_path"]: torch.tensor(frame["transform_matrix"])[:3] for frame in exported["frames"]}
    assert torch.equal(torch.stack([poses[name] for name in clip.names]), moved.camera_to_world)
    test = load_clip(run.capture, "test", 24)
    assert test is not None
    assert torch.equal(poses[test.names[0]], test.cameras.camera_to_world[0])  # held-out cameras stay as they are
    last = [e["numbers"] for e in events if e["event"] == "step"][-1]
    assert last["camera_degrees"] > 0
    assert last["exposure_factor"] > 1
