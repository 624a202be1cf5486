"""Analytic surfaces, each in its own frame: ray hit, normal and surface coordinates.

All tensors are component first: points, origins and directions (3, N), sizes (3, N). Directions need not be of unit
length; a hit is the smallest parameter t > NEAR with `origin + t * direction` on the surface, infinity where there is
none. Surface coordinates (2, N) are lengths along the surface, for textures; round shapes repeat after one turn.

| shape | size |
|---|---|
| ellipsoid | half axes |
| box | half sides |
| frustum | radius below, radius above, half height along z (cylinder, cone, flower pot) |
| capsule | radius, unused, half length of its axis along z |
| torus | radius of the ring, radius of the tube, unused; the ring lies in the xy plane |
| room | half sides of a box seen from inside |
| ground | unused: the plane z = 0 |
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 1e-4
MARCH_STEPS, POLISH_STEPS = 36, 5


def _nearest(*candidates: tuple[Tensor, Tensor]) -> Tensor:
    """The smallest valid parameter above NEAR of (parameter, valid) pairs."""
    best = torch.full_like(candidates[0][0], torch.inf)
    for t, valid in candidates:
        best = torch.where(valid & (t > NEAR) & (t < best), t, best)
    return best


def _roots(a: Tensor, half_b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both roots of a t^2 + 2 half_b t + c, in the form without cancellation, and whether they are real."""
    discriminant = half_b * half_b - a * c
    q = -(half_b + torch.copysign(discriminant.clamp_min(0).sqrt(), half_b))
    return q / a, c / q, discriminant > 0


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(v: Tensor) -> Tensor:
    return v * _dot(v, v).clamp_min(1e-20).rsqrt()


def hit_ellipsoid(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    o, d = origin / size, direction / size
    near, far, real = _roots(_dot(d, d), _dot(o, d), _dot(o, o) - 1)
    return _nearest((near, real), (far, real))


def _slabs(origin: Tensor, direction: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ray enters and leaves the box."""
    inverse = 1 / torch.where(direction == 0, torch.full_like(direction, 1e-12), direction)
    middle, half = -origin * inverse, size * inverse.abs()
    return (middle - half).amax(0), (middle + half).amin(0)


def hit_box(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    enter, leave = _slabs(origin, direction, size)
    met = enter < leave
    return _nearest((enter, met), (leave, met))


def hit_room(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    enter, leave = _slabs(origin, direction, size)
    return _nearest((leave, enter < leave))


def hit_frustum(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    (ox, oy, oz), (dx, dy, dz), (below, above, height) = origin, direction, size
    # radius at z is `middle + slope * z`
    middle, slope = (below + above) / 2, (above - below) / (2 * height)
    radius, growth = middle + slope * oz, slope * dz
    first, second, real = _roots(
        dx * dx + dy * dy - growth * growth,
        ox * dx + oy * dy - radius * growth,
        ox * ox + oy * oy - radius * radius,
    )
    candidates = [(t, real & ((oz + t * dz).abs() <= height)) for t in (first, second)]
    inverse = 1 / torch.where(dz == 0, torch.full_like(dz, 1e-12), dz)
    for z, limit in ((-height, below), (height, above)):
        t = (z - oz) * inverse
        candidates.append((t, (ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= limit * limit))
    return _nearest(*candidates)


def hit_capsule(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    (ox, oy, oz), (dx, dy, dz), (radius, _, half) = origin, direction, size
    first, second, real = _roots(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - radius * radius)
    candidates = [(t, real & ((oz + t * dz).abs() <= half)) for t in (first, second)]
    square = _dot(direction, direction)
    for centre in (-half, half):
        z = oz - centre
        first, second, real = _roots(square, ox * dx + oy * dy + z * dz, ox * ox + oy * oy + z * z - radius * radius)
        # of each ball only the half beyond the axis is surface
        candidates += [(t, real & ((oz + t * dz) * centre.sign() >= half)) for t in (first, second)]
    return _nearest(*candidates)


def hit_torus(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    """Sphere tracing inside the bounding ball (the quartic's closed form loses too many digits in float32).

    Only for rays that start outside of the torus.
    """
    ring, tube = size[0], size[1]
    speed = _dot(direction, direction).sqrt()
    d = direction / speed
    middle, reach = -_dot(origin, d), 1.01 * (ring + tube)
    gap = _dot(origin, origin) - middle * middle
    half = (reach * reach - gap).clamp_min(0).sqrt()
    t, end = (middle - half).clamp_min(NEAR), middle + half

    def distance(t: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance at t and its slope along the ray."""
        x, y, z = origin[0] + t * d[0], origin[1] + t * d[1], origin[2] + t * d[2]
        around = (x * x + y * y).sqrt().clamp_min(1e-9)
        across = around - ring
        length = (across * across + z * z).sqrt().clamp_min(1e-9)
        return length - tube, (across * (x * d[0] + y * d[1]) / around + z * d[2]) / length

    for _ in range(MARCH_STEPS):
        value = distance(t)[0]
        # a least step, so that rays which only graze a part get past it; it is taken back where it goes inside
        t = t + torch.where(value < 0, value, torch.maximum(value, 0.1 * tube))
    for _ in range(POLISH_STEPS):
        value, slope = distance(t)
        t = t - value / torch.where(slope.abs() < 0.05, torch.full_like(slope, -0.05), slope)
    met = (distance(t)[0].abs() < 1e-3 * tube) & (t < end) & (gap < reach * reach)
    return _nearest((t / speed, met))


def hit_ground(origin: Tensor, direction: Tensor, size: Tensor) -> Tensor:  # noqa: ARG001
    down = -direction[2]
    return _nearest((origin[2] / down.clamp_min(1e-6), down > 1e-6))


def _faces(point: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) each: whether `point` is on a face across x, across y, across z of the box."""
    x, y, z = (point / size).abs()
    on_z = (z >= x) & (z >= y)
    on_x = (x >= y) & ~on_z
    return on_x, ~(on_x | on_z), on_z


def normal_ellipsoid(point: Tensor, size: Tensor) -> Tensor:
    return _unit(point / (size * size))


def normal_box(point: Tensor, size: Tensor) -> Tensor:
    return torch.stack(_faces(point, size)) * point.sign()


def normal_room(point: Tensor, size: Tensor) -> Tensor:
    return -normal_box(point, size)


def normal_frustum(point: Tensor, size: Tensor) -> Tensor:
    below, above, height = size
    slope = (above - below) / (2 * height)
    around = (point[0] ** 2 + point[1] ** 2).sqrt().clamp_min(1e-9)
    radius = (below + above) / 2 + slope * point[2]
    side = torch.stack([point[0] / around, point[1] / around, -slope])
    # a cap where the point is nearer to its plane than to the side
    cap = (height - point[2].abs()) < (radius - around).abs()
    flat = torch.stack([torch.zeros_like(around), torch.zeros_like(around), point[2].sign()])
    return torch.where(cap, flat, _unit(side))


def normal_capsule(point: Tensor, size: Tensor) -> Tensor:
    z = point[2] - torch.minimum(torch.maximum(point[2], -size[2]), size[2])
    return _unit(torch.stack([point[0], point[1], z]))


def normal_torus(point: Tensor, size: Tensor) -> Tensor:
    around = (point[0] ** 2 + point[1] ** 2).sqrt().clamp_min(1e-9)
    share = 1 - size[0] / around
    return _unit(torch.stack([point[0] * share, point[1] * share, point[2]]))


def normal_ground(point: Tensor, size: Tensor) -> Tensor:  # noqa: ARG001
    zero = torch.zeros_like(point[0])
    return torch.stack([zero, zero, zero + 1])


def unroll_box(point: Tensor, size: Tensor) -> Tensor:
    """The two coordinates within the face; v is the upright one on the sides."""
    on_x, _, on_z = _faces(point, size)
    return torch.stack([torch.where(on_x, point[1], point[0]), torch.where(on_z, point[1], point[2])])


def unroll_ground(point: Tensor, size: Tensor) -> Tensor:  # noqa: ARG001
    return point[:2]


def unroll_round(point: Tensor, size: Tensor) -> Tensor:
    """Arc about the z axis at the widest radius, and height; caps count outward distance as height."""
    around = (point[0] ** 2 + point[1] ** 2).sqrt()
    return torch.stack([torch.atan2(point[1], point[0]) * torch.maximum(size[0], size[1]), point[2] - around])


def unroll_ellipsoid(point: Tensor, size: Tensor) -> Tensor:
    """Arc about the z axis at the equator, and arc from the equator to the poles."""
    p = point / size
    rise = torch.atan2(p[2], (p[0] ** 2 + p[1] ** 2).sqrt())
    return torch.stack([torch.atan2(p[1], p[0]) * size[0], rise * size[2]])


def unroll_torus(point: Tensor, size: Tensor) -> Tensor:
    """Arc along the ring, and arc round the tube."""
    around = (point[0] ** 2 + point[1] ** 2).sqrt()
    return torch.stack([torch.atan2(point[1], point[0]) * size[0], torch.atan2(point[2], around - size[0]) * size[1]])


def reach_ball(size: Tensor) -> Tensor:
    return size.amax(0)


def reach_corner(size: Tensor) -> Tensor:
    return (size * size).sum(0).sqrt()


def reach_frustum(size: Tensor) -> Tensor:
    return torch.hypot(torch.maximum(size[0], size[1]), size[2])


def reach_capsule(size: Tensor) -> Tensor:
    return size[0] + size[2]


def reach_torus(size: Tensor) -> Tensor:
    return size[0] + size[1]


def reach_everywhere(size: Tensor) -> Tensor:
    return torch.full_like(size[0], torch.inf)


class Shape(NamedTuple):
    """The functions of one kind of surface."""

    hit: Callable[[Tensor, Tensor, Tensor], Tensor]  # origin, direction, size -> t (N,)
    normal: Callable[[Tensor, Tensor], Tensor]  # point, size -> unit (3, N), towards where rays come from
    unroll: Callable[[Tensor, Tensor], Tensor]  # point, size -> surface coordinates (2, N)
    reach: Callable[[Tensor], Tensor]  # size -> radius (N,) of the ball about the origin that holds it
    turn: Callable[[Tensor], Tensor] | None  # size -> length (N,) after which the first coordinate repeats


def _turn_widest(size: Tensor) -> Tensor:
    return 2 * math.pi * torch.maximum(size[0], size[1])


def _turn_first(size: Tensor) -> Tensor:
    return 2 * math.pi * size[0]


ELLIPSOID, BOX, FRUSTUM, CAPSULE, TORUS, ROOM, GROUND = range(7)
SHAPES = (
    Shape(hit_ellipsoid, normal_ellipsoid, unroll_ellipsoid, reach_ball, _turn_first),
    Shape(hit_box, normal_box, unroll_box, reach_corner, None),
    Shape(hit_frustum, normal_frustum, unroll_round, reach_frustum, _turn_widest),
    Shape(hit_capsule, normal_capsule, unroll_round, reach_capsule, _turn_first),
    Shape(hit_torus, normal_torus, unroll_torus, reach_torus, _turn_first),
    Shape(hit_room, normal_room, unroll_box, reach_everywhere, None),
    Shape(hit_ground, normal_ground, unroll_ground, reach_everywhere, None),
)


def room_face(point: Tensor, size: Tensor) -> Tensor:
    """(N,) which wall of a room: 0 floor, 1 ceiling, 2 walls along x, 3 walls along y."""
    _, on_y, on_z = _faces(point, size)
    return torch.where(on_z, (point[2] > 0).long(), on_y.long() + 2)
