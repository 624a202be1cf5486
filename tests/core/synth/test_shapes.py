"""Hits and normals against implicit functions, searched densely in float64."""

import math

import pytest
import torch
from torch import Tensor

from dpdy_core.synth.shapes import BOX, CAPSULE, ELLIPSOID, FRUSTUM, GROUND, NEAR, ROOM, SHAPES, TORUS, room_face
from dpdy_core.synth.textures import TEXTURES

END = 12.0  # of all rays
SIZES = {
    ELLIPSOID: (0.5, 0.8, 0.3),
    BOX: (0.4, 0.7, 0.5),
    FRUSTUM: (0.6, 0.25, 0.7),
    CAPSULE: (0.3, 0.3, 0.5),
    TORUS: (0.6, 0.2, 0.6),
    ROOM: (3.0, 2.5, 2.8),
    GROUND: (1.0, 1.0, 1.0),
}


def implicit(kind: int, p: Tensor, size: tuple[float, float, float]) -> Tensor:
    """Negative inside, zero on the surface, of points (..., 3)."""
    s = torch.tensor(size, dtype=p.dtype)
    around = p[..., :2].norm(dim=-1)
    if kind == ELLIPSOID:
        return (p / s).norm(dim=-1) - 1
    if kind in (BOX, ROOM):
        return (p.abs() - s).amax(-1)
    if kind == FRUSTUM:
        radius = s[0] + (s[1] - s[0]) * (p[..., 2] + s[2]) / (2 * s[2])
        return torch.maximum(p[..., 2].abs() - s[2], around - radius)
    if kind == CAPSULE:
        rest = torch.stack([p[..., 0], p[..., 1], p[..., 2] - p[..., 2].clamp(-size[2], size[2])], -1)
        return rest.norm(dim=-1) - s[0]
    if kind == TORUS:
        return torch.hypot(around - s[0], p[..., 2]) - s[1]
    return p[..., 2]


def first_crossing(kind: int, origin: Tensor, direction: Tensor, size: tuple[float, float, float]) -> Tensor:
    """(N,) smallest parameter at which the implicit function changes sign: dense samples, then bisection."""
    t = torch.linspace(NEAR, END, 4001, dtype=torch.float64)
    outside = implicit(kind, origin[:, None] + t[:, None] * direction[:, None], size) > 0
    change = outside[:, 1:] != outside[:, :-1]
    step = change.to(torch.uint8).argmax(1)
    low, high = t[step], t[step + 1]
    side = outside.gather(1, step[:, None])[:, 0]
    for _ in range(40):
        middle = (low + high) / 2
        same = (implicit(kind, origin + middle[:, None] * direction, size) > 0) == side
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return torch.where(change.any(1), low, torch.inf)


def random_rays(kind: int, count: int) -> tuple[Tensor, Tensor]:
    """Float64 rays of different speeds, half of them aimed near the shape, some from inside it."""
    generator = torch.Generator().manual_seed(kind)
    normal = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    if kind == ROOM:
        origin = normal[0].clamp(-2, 2)
    elif kind == GROUND:
        origin = normal[0] + torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
    else:
        origin = 2 * torch.nn.functional.normalize(normal[0], dim=1)
        origin[::4] *= 0.15
    if kind == TORUS:
        origin[::4] *= 0
    direction = 0.5 * normal[1] - 0.7 * origin * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    return origin, direction / direction.norm(dim=1, keepdim=True) * (0.7 + torch.rand(count, 1, generator=generator))


@pytest.mark.parametrize("kind", SIZES)
def test_hits_and_normals_match_the_implicit_surface(kind: int) -> None:
    origin, direction = random_rays(kind, 400)
    size = torch.tensor(SIZES[kind])[:, None].expand(3, len(origin))
    expected = first_crossing(kind, origin, direction, SIZES[kind])
    found = SHAPES[kind].hit(origin.T.float(), direction.T.float(), size)
    found = torch.where(found < END, found, torch.inf)

    met = torch.isfinite(expected) & torch.isfinite(found)
    assert met.float().mean() > 0.15
    assert (found[met] - expected[met]).abs().quantile(0.99) < 1e-3
    # rays on which they do not agree graze the surface
    for i in (torch.isfinite(expected) != torch.isfinite(found)).nonzero()[:, 0].tolist():
        t = torch.linspace(0, END, 40001, dtype=torch.float64)
        along = implicit(kind, origin[i] + t[:, None] * direction[i], SIZES[kind])
        assert along.abs().amin() < 2e-3
        assert along.amin() > -2e-3

    point = origin[met] + expected[met, None] * direction[met]
    normal = SHAPES[kind].normal(point.T.float(), size[:, met]).double().T
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    up, down = (implicit(kind, point[:, None] + sign * step, SIZES[kind]) for sign in (1, -1))
    gradient = torch.nn.functional.normalize(up - down, dim=1) * (-1 if kind == ROOM else 1)
    assert ((normal * gradient).sum(1) > 0.999).float().mean() > 0.985  # the rest lie on edges
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(len(normal), dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [ELLIPSOID, BOX, FRUSTUM, CAPSULE, TORUS])
def test_reach_holds_the_shape(kind: int) -> None:
    origin, direction = random_rays(kind, 400)
    size = torch.tensor(SIZES[kind])[:, None].expand(3, len(origin))
    t = SHAPES[kind].hit(origin.T.float(), direction.T.float(), size)
    point = (origin.T + t * direction.T)[:, torch.isfinite(t)]
    far = point.norm(dim=0).amax()
    reach = SHAPES[kind].reach(size)[0]
    assert far <= reach + 1e-5
    assert far > 0.7 * reach


def test_room_faces_are_told_apart() -> None:
    point = torch.tensor([[0.1, 0.2, -1.0], [0.1, 0.2, 1.0], [2.0, 0.1, 0.2], [0.3, -3.0, 0.1]]).T
    assert room_face(point, torch.tensor([2.0, 3.0, 1.0])[:, None].expand(3, 4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", TEXTURES)
def test_patterns_close_after_a_turn(name: str) -> None:
    pattern, mean = TEXTURES[name]
    generator = torch.Generator().manual_seed(0)
    v = 10 * torch.rand(4000, generator=generator)
    turn = torch.randint(2, 9, (4000,), generator=generator).float()
    sides = [pattern(torch.stack([1e-3 + side * turn / 2, v]), turn) for side in (-1, 1)]
    assert ((sides[0] - sides[1]).abs() < 0.05).float().mean() > 0.97
    flat = pattern(40 * torch.rand(2, 20000, generator=generator) - 20, torch.zeros(20000))
    assert flat.min() >= 0
    assert flat.max() <= 1
    assert math.isclose(float(flat.mean()), mean, abs_tol=0.06)
