"""The fields and the scene they make."""

import pytest
import torch

from dpdy_core.config import FieldsConfig, GridConfig, SamplingConfig
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.mlp import spherical_harmonics, truncated_exp, truncated_sigmoid
from dpdy_core.scene.scene import Scene

GRID = GridConfig(levels=3, log2_table=10, base_resolution=4, max_resolution=16)
FIELDS = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=16)
BOUNDS = Bounds((0.0, 0.0, 0.0), 1.0, 0.1, 10.0)


def make_scene(fields: FieldsConfig = FIELDS, seed: int = 0) -> Scene:
    return Scene(fields, SamplingConfig(proposal=8, fine=8), BOUNDS, 5, "torch", torch.Generator().manual_seed(seed))


def random_points(rays: int = 6, samples: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(rays, samples, 3, generator=generator)
    return points, torch.randn(rays, 3, generator=generator), torch.rand(rays, generator=generator)


def test_the_scene_starts_static() -> None:
    samples = make_scene().sample(*random_points())
    assert (samples.dynamic_density < 0.1 * samples.static_density).all()


def test_only_the_dynamic_field_knows_time() -> None:
    scene = make_scene()
    for encoder in scene.encoders():
        encoder.table.data.normal_(generator=torch.Generator().manual_seed(2))
    points, directions, _ = random_points()
    early, late = (scene.sample(points, directions, torch.full((6,), t)) for t in (0.0, 0.9))
    assert torch.equal(early.static_density, late.static_density)
    assert not torch.allclose(early.dynamic_density, late.dynamic_density)


def test_one_field_for_all_has_no_static_part() -> None:
    scene = make_scene(FIELDS.model_copy(update={"split": False}))
    samples = scene.sample(*random_points())
    assert scene.static is None
    assert (samples.static_density == 0).all()
    assert (samples.dynamic_density > 0.1).all()  # it has the haze that the static field would start with


def test_the_dynamic_field_can_have_a_grid_over_space() -> None:
    """Without it a signal over x, y and z cannot outlive time: with it the space features alone tell points apart."""
    without, with_grid = (
        make_scene(FIELDS.model_copy(update={"dynamic_space_grid": on})).dynamic.encoder for on in (False, True)
    )
    assert with_grid.width == without.width + GRID.levels * GRID.features
    torch.manual_seed(0)
    points = torch.rand(50, 4)
    later = torch.cat([points[:, :3], 1 - points[:, 3:]], dim=-1)
    unchanged = (with_grid(points) == with_grid(later)).all(dim=0)
    assert int(unchanged.sum()) == GRID.levels * GRID.features
    assert not (without(points) == without(later)).all(dim=0).any()


def test_the_static_field_has_planes() -> None:
    """A plane's features are those of all points on a line along its normal, seen or not."""
    without, with_planes = (make_scene(FIELDS.model_copy(update={"static_planes": on})).static for on in (False, True))
    assert without is not None
    assert with_planes is not None
    assert with_planes.encoder.width == without.encoder.width + 3 * GRID.levels * GRID.features
    with_planes.encoder.table.data.normal_(generator=torch.Generator().manual_seed(2))
    low, high = torch.tensor([[0.2, 0.6, 0.1]]), torch.tensor([[0.2, 0.6, 0.9]])
    shared = (with_planes.encoder(low) == with_planes.encoder(high)).all(dim=0)
    assert int(shared.sum()) == GRID.levels * GRID.features


def test_shadows_darken_the_static_field_in_time_and_are_faint_at_first() -> None:
    points, directions, _ = random_points()
    early, late = torch.full((6,), 0.0), torch.full((6,), 0.9)
    for switched_on in (True, False):
        scene = make_scene(FIELDS.model_copy(update={"shadows": switched_on}))
        assert float(scene.sample(points, directions, early).shadow.detach().max()) < 0.2
        scene.dynamic.encoder.table.data.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
        first, second = (scene.sample(points, directions, times) for times in (early, late))
        assert torch.equal(first.static_colour, second.static_colour) is not switched_on
        lit = first.static_colour / (1 - first.shadow)[..., None]
        torch.testing.assert_close(lit, second.static_colour / (1 - second.shadow)[..., None])


def test_view_dependence_can_be_switched_off() -> None:
    points, directions, times = random_points()
    for switched_on in (True, False):
        scene = make_scene(FIELDS.model_copy(update={"view_dependence": switched_on}))
        front, back = (scene.sample(points, d, times).static_colour for d in (directions, -directions))
        assert torch.equal(front, back) is not switched_on


def test_parameter_groups_hold_every_parameter_once() -> None:
    scene = make_scene()
    groups = scene.parameter_groups()
    assert len(groups["grid"]) == 3
    listed = [id(p) for group in groups.values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in scene.parameters())


def test_equal_seeds_give_equal_scenes() -> None:
    torch.manual_seed(1)
    first = make_scene(seed=3)
    torch.manual_seed(2)  # the global generator has no say
    second = make_scene(seed=3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_truncated_sigmoid_has_the_gradient_of_sigmoid_and_keeps_one_when_saturated() -> None:
    x = torch.linspace(-4.9, 4.9, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(truncated_sigmoid, (x,))
    dark = torch.tensor([-40.0, 40.0], requires_grad=True)
    colours = truncated_sigmoid(dark)
    torch.testing.assert_close(colours.detach(), torch.tensor([0.0, 1.0]))
    colours.sum().backward()
    assert dark.grad is not None
    assert bool((dark.grad > 0.005).all())


def test_truncated_exp_has_the_gradient_of_exp_and_keeps_one_when_saturated() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(truncated_exp, (x,))
    high = torch.tensor([50.0], requires_grad=True)
    truncated_exp(high).sum().backward()
    assert high.grad is not None
    assert torch.isfinite(high.grad).all()
    assert (high.grad > 0).all()


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_spherical_harmonics_are_orthonormal(degree: int) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    basis = spherical_harmonics(torch.nn.functional.normalize(directions, dim=-1))
    gram = basis.T @ basis / len(basis) * 4 * torch.pi
    rows = slice(degree**2, (degree + 1) ** 2)
    torch.testing.assert_close(gram[rows], torch.eye(9, dtype=torch.float64)[rows], atol=0.03, rtol=0)
