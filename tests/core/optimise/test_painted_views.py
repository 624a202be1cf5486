import pytest
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.optimise.painted_views import PaintedViews

WIDTH, HEIGHT, FOCAL = 8, 6, 5.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pose(x: float) -> Tensor:
    return look_at(torch.tensor([x, 0.3, 2.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))[None]


def put(pool: PaintedViews, x: float, painted: Tensor) -> tuple[Tensor, Tensor]:
    """A view from `x` whose colour and inverse depth name it, the row and the column; returns both."""
    row, column = torch.meshgrid(torch.arange(float(HEIGHT)), torch.arange(float(WIDTH)), indexing="ij")
    colour = torch.stack([torch.full_like(row, x), row, column])[None]
    inverse = (1 + row + 10 * column)[None, None]
    pool.put(pose(x), torch.tensor([x]), colour, inverse, painted, 1 - painted)
    return colour, inverse


def test_rays_go_through_the_pixels_whose_colour_they_carry() -> None:
    pool = PaintedViews(3, WIDTH, HEIGHT, torch.device("cpu"))
    for x in (0.1, 0.7):
        put(pool, x, torch.ones(1, 1, HEIGHT, WIDTH))
    rays = pool.draw(400, torch.tensor(FOCAL), seeded())
    assert set(rays.times.tolist()) == {torch.tensor(0.1).item(), torch.tensor(0.7).item()}
    assert rays.weight.eq(1).all()
    assert rays.still.eq(0).all()
    cameras = Cameras(
        torch.cat([pose(0.1), pose(0.7)]),
        torch.full((2, 2), FOCAL),
        torch.tensor([WIDTH / 2, HEIGHT / 2]).expand(2, 2),
        WIDTH,
        HEIGHT,
    )
    view = (rays.times > 0.5).long()
    pixels, depth = cameras.project(rays.origins + 1.7 * rays.directions, view)
    torch.testing.assert_close(depth, torch.full_like(depth, 1.7))
    torch.testing.assert_close(pixels.flip(1), rays.colour[:, 1:] + 0.5, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rays.colour[:, 0], rays.times)
    torch.testing.assert_close(rays.inverse_depth, 1 + rays.colour[:, 1] + 10 * rays.colour[:, 2])
    places = {(float(x), int(r), int(c)) for x, r, c in rays.colour.tolist()}
    assert len(places) > 60  # of the 96 pixels


def test_only_painted_pixels_are_drawn() -> None:
    pool = PaintedViews(2, WIDTH, HEIGHT, torch.device("cpu"))
    painted = torch.zeros(1, 1, HEIGHT, WIDTH)
    painted[0, 0, 0, 0] = painted[0, 0, 2, 3] = painted[0, 0, 5, 5] = 1
    put(pool, 0.5, painted)
    rays = pool.draw(200, torch.tensor(FOCAL), seeded())
    assert {tuple(map(int, c)) for c in rays.colour[:, 1:].tolist()} == {(0, 0), (2, 3), (5, 5)}


def test_a_pool_without_painted_pixels_has_no_weight() -> None:
    pool = PaintedViews(2, WIDTH, HEIGHT, torch.device("cpu"))
    for _ in range(2):
        assert pool.draw(50, torch.tensor(FOCAL), seeded()).weight.eq(0).all()
        put(pool, 0.5, torch.zeros(1, 1, HEIGHT, WIDTH))


def test_points_lie_where_their_pixels_were_painted() -> None:
    """Thrown back into the view, each falls on its own pixel, as far away as was painted."""
    pool = PaintedViews(3, WIDTH, HEIGHT, torch.device("cpu"))
    painted = torch.zeros(1, 1, HEIGHT, WIDTH)
    painted[0, 0, 2, 3] = painted[0, 0, 5, 5] = 1
    _, inverse = put(pool, 0.5, painted)
    points = pool.points(torch.tensor(FOCAL))
    assert points.times.tolist() == [0.5, 0.5]
    assert points.moving.all()  # `put` calls what is painted a mover
    centre = torch.tensor([[WIDTH / 2, HEIGHT / 2]])
    camera = Cameras(pose(0.5), torch.full((1, 2), FOCAL), centre, WIDTH, HEIGHT)
    pixels, depth = camera.project(points.positions, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(pixels, torch.tensor([[3.5, 2.5], [5.5, 5.5]]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(1 / depth, inverse[0, 0][painted[0, 0] > 0])


def test_several_views_at_once_are_as_good_as_one_by_one() -> None:
    together, single = (PaintedViews(4, WIDTH, HEIGHT, torch.device("cpu")) for _ in range(2))
    maps = [torch.rand((4, n, HEIGHT, WIDTH), generator=seeded(n)) for n in (3, 1, 1, 1)]
    poses, times = torch.cat([pose(x / 4) for x in range(4)]), torch.rand(4, generator=seeded(5))
    for start, end in ((0, 2), (2, 4)):
        together.put(poses[start:end], times[start:end], *(m[start:end] for m in maps))
    for k in range(4):
        single.put(poses[[k]], times[[k]], *(m[[k]] for m in maps))
    for name, value in together.state().items():
        assert torch.equal(value, single.state()[name])


def test_a_pool_goes_on_from_its_state() -> None:
    pool, other = (PaintedViews(3, WIDTH, HEIGHT, torch.device("cpu")) for _ in range(2))
    for x in (0.25, 0.5):
        put(pool, x, torch.ones(1, 1, HEIGHT, WIDTH))
    other.load(pool.state())
    for one in (pool, other):
        put(one, 0.125, torch.ones(1, 1, HEIGHT, WIDTH))
    mine, theirs = (one.draw(80, torch.tensor(FOCAL), seeded()) for one in (pool, other))
    assert torch.equal(mine.colour, theirs.colour)
    assert torch.equal(mine.origins, theirs.origins)
    assert set(theirs.times.tolist()) == {0.125, 0.25, 0.5}
    with pytest.raises(ValueError, match="no room"):
        put(other, 0.125, torch.ones(1, 1, HEIGHT, WIDTH))
