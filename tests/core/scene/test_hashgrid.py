"""The batched hash grid against a slow float64 loop that follows the paper."""

import itertools

import pytest
import torch

from dpdy_core.config import GridConfig
from dpdy_core.errors import BadSettings
from dpdy_core.scene.grid import Grid, plane_grids, space_grid, time_grids
from dpdy_core.scene.hashgrid import choose_backend, make_encoder
from dpdy_core.scene.hashgrid_torch import TorchHashGrid, locate

CONFIG = GridConfig(levels=4, features=2, log2_table=8, base_resolution=3, max_resolution=40)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_features(encoder: TorchHashGrid, grids: list[Grid], point: torch.Tensor) -> list[float]:
    """Level by level, corner by corner, in float64: Instant-NGP's equations, with table starts counted by hand."""
    table = encoder.table.detach().double()
    levels = [(grid, cells) for grid in grids for cells in grid.resolutions()]
    dense = [(g, c) for g, c in levels if (c[0] + 1) * (c[1] + 1) * (c[2] + 1) <= 2**g.log2_table]
    hashed = [pair for pair in levels if pair not in dense]
    start, result = 0, []
    for grid, cells in dense + hashed:
        is_dense, size = (grid, cells) in dense, 2**grid.log2_table
        if not is_dense:
            start = (start + size - 1) // size * size
        value = torch.zeros(encoder.features, dtype=torch.float64)
        position = [float(point[a]) * n for a, n in zip(grid.axes, cells, strict=True)]
        low = [min(int(p), n - 1) for p, n in zip(position, cells, strict=True)]
        for corner in itertools.product((0, 1), repeat=3):
            vertex = [v + d for v, d in zip(low, corner, strict=True)]
            share = 1.0
            for p, v, d in zip(position, low, corner, strict=True):
                share *= (p - v) if d else 1 - (p - v)
            if is_dense:
                row = vertex[0] + (cells[0] + 1) * (vertex[1] + (cells[1] + 1) * vertex[2])
            else:
                row = (vertex[0] ^ (vertex[1] * 2654435761) ^ (vertex[2] * 805459861)) % size
            value += share * table[start + row]
        start += (cells[0] + 1) * (cells[1] + 1) * (cells[2] + 1) if is_dense else size
        result.append(value)
    # The encoder's features are feature-major over its levels, dense levels first.
    dense_part, hashed_part = result[: len(dense)], result[len(dense) :]
    return [float(v[f]) for f in range(encoder.features) for v in dense_part + hashed_part]


@pytest.mark.parametrize("features", [1, 2, 4])
def test_matches_the_slow_reference(features: int) -> None:
    config = CONFIG.model_copy(update={"features": features})
    grids = [*time_grids(config, time_cells=9), space_grid(config)]
    encoder = TorchHashGrid(grids, seeded())
    encoder.table.data = torch.randn(encoder.table.shape, generator=seeded(1))
    points = torch.rand(40, 4, generator=seeded(2))
    points[0], points[1], points[2, 3] = 0.0, 1.0, 1.0  # the faces of the cube belong to it
    assert len(encoder.groups) == 2  # both dense and hashed levels are exercised
    expected = torch.tensor([slow_features(encoder, grids, p) for p in points])
    torch.testing.assert_close(encoder(points), expected, atol=2e-5, rtol=1e-4)


def test_gradient_is_that_of_plain_autograd() -> None:
    encoder = TorchHashGrid([space_grid(CONFIG)], seeded())
    points = torch.rand(300, 3, generator=seeded(3))
    direction = torch.randn(300, encoder.width, generator=seeded(4))
    (encoder(points) * direction).sum().backward()
    table = encoder.table.detach().clone().requires_grad_()
    features = []
    for group in encoder.groups:
        rows, weights = locate(points.T.contiguous(), *group())
        features.append((table[rows.long()] * weights[..., None]).sum(0).permute(2, 0, 1))
    plain = torch.cat(features, dim=1).flatten(0, 1).T
    (plain * direction).sum().backward()
    assert encoder.table.grad is not None
    torch.testing.assert_close(encoder.table.grad, table.grad)


def test_gradients_to_points_match_finite_differences() -> None:
    encoder = TorchHashGrid([*time_grids(CONFIG, time_cells=9), space_grid(CONFIG)], seeded()).double()
    encoder.table.data = torch.randn(encoder.table.shape, generator=seeded(1), dtype=torch.float64)
    points = torch.rand(20, 4, generator=seeded(2), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(encoder, (points,), eps=1e-7, atol=1e-4)


def test_points_outside_the_cube_take_its_faces() -> None:
    encoder = TorchHashGrid([space_grid(CONFIG)], seeded())
    outside = torch.tensor([[-3.0, 0.5, 7.0]])
    torch.testing.assert_close(encoder(outside), encoder(outside.clamp(0, 1)))


def test_time_has_its_own_resolution() -> None:
    grid = time_grids(CONFIG, time_cells=29)[0]
    assert grid.axes == (0, 1, 3)
    assert grid.resolutions()[0] == (3, 3, 4)
    assert grid.resolutions()[-1] == (40, 40, 29)


def test_one_time_cell_makes_a_grid_without_motion() -> None:
    assert {cells[2] for cells in time_grids(CONFIG, time_cells=1)[2].resolutions()} == {1}


def test_planes_match_the_slow_reference_and_are_the_same_along_their_normals() -> None:
    grids = [*plane_grids(CONFIG), space_grid(CONFIG)]
    encoder = TorchHashGrid(grids, seeded())
    encoder.table.data = torch.randn(encoder.table.shape, generator=seeded(1))
    points = torch.rand(20, 3, generator=seeded(2))
    expected = torch.tensor([slow_features(encoder, grids, torch.cat([p, torch.zeros(1)])) for p in points])
    torch.testing.assert_close(encoder(points), expected, atol=2e-5, rtol=1e-4)
    one_plane = TorchHashGrid(plane_grids(CONFIG)[:1], seeded())
    one_plane.table.data.normal_(generator=seeded(3))
    moved = points + torch.tensor([0.0, 0.0, 1.0]) * torch.rand(20, 1, generator=seeded(4))
    assert torch.equal(one_plane(points), one_plane(moved))
    assert not torch.equal(one_plane(points), one_plane(moved.roll(1, dims=1)))


def test_equal_seeds_give_equal_tables() -> None:
    first, second = (make_encoder([space_grid(CONFIG)], "torch", seeded(5)) for _ in range(2))
    assert isinstance(first, TorchHashGrid)
    assert isinstance(second, TorchHashGrid)
    assert torch.equal(first.table, second.table)


def test_tinycudann_on_a_cpu_is_refused() -> None:
    with pytest.raises(BadSettings, match="tinycudann"):
        choose_backend("tinycudann", torch.device("cpu"))
    assert choose_backend("auto", torch.device("cpu")) == "torch"


def test_grids_of_one_encoder_share_their_number_of_features() -> None:
    other = space_grid(CONFIG.model_copy(update={"features": 4}))
    with pytest.raises(ValueError, match="equal features"):
        TorchHashGrid([space_grid(CONFIG), other], seeded())


def test_decay_is_the_mean_square_of_each_hashed_level() -> None:
    grids = [*time_grids(CONFIG, time_cells=9), space_grid(CONFIG)]
    encoder = TorchHashGrid(grids, seeded())
    encoder.table.data = torch.randn(encoder.table.shape, generator=seeded(1))
    table, start, wanted = encoder.table.detach().double(), 0, 0.0
    sizes = [((c[0] + 1) * (c[1] + 1) * (c[2] + 1), 2**g.log2_table) for g in grids for c in g.resolutions()]
    start = sum(vertices for vertices, most in sizes if vertices <= most)
    for _, most in (pair for pair in sizes if pair[0] > pair[1]):
        start = (start + most - 1) // most * most
        wanted += float(table[start : start + most].square().mean())
        start += most
    assert start == len(table)
    assert float(encoder.decay().detach()) == pytest.approx(wanted, rel=1e-5)


def test_decay_leaves_levels_that_share_no_rows_alone() -> None:
    encoder = TorchHashGrid([space_grid(CONFIG)], seeded())
    encoder.decay().backward()
    assert encoder.table.grad is not None
    moved = encoder.table.grad.ne(0).any(dim=1)
    dense = sum((c + 1) ** 3 for c, _, _ in space_grid(CONFIG).resolutions() if (c + 1) ** 3 <= 2**CONFIG.log2_table)
    assert dense > 0
    assert not moved[:dense].any()
    assert moved[-(2**CONFIG.log2_table) :].all()
