"""`render_rays` against a slow renderer in float64 that walks along one ray at a time, for both blends."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from dpdy_core.config import FieldsConfig, GridConfig, SamplingConfig
from dpdy_core.render.renderer import RayRendering, render_rays
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.scene import Scene

GRID = GridConfig(levels=3, log2_table=10, base_resolution=3, max_resolution=12)
BOUNDS = Bounds((0.1, -0.2, -1.0), 1.3, 0.4, 9.0)
RAYS = 5


def real_scene(blend: Literal["additive", "learned"]) -> Scene:
    """Real fields with random tables, in float64."""
    fields = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=8, blend=blend)
    sampling = SamplingConfig(proposal=10, fine=12)
    scene = Scene(fields, sampling, BOUNDS, 6, "torch", torch.Generator().manual_seed(0)).double()
    for seed, encoder in enumerate(scene.encoders()):
        generator = torch.Generator().manual_seed(seed)
        encoder.table.data = 3 * torch.randn(encoder.table.shape, generator=generator, dtype=torch.float64)
    return scene


def walk(
    scene: Scene, origin: Tensor, direction: Tensor, time: Tensor, edges: Tensor, background: Tensor
) -> dict[str, Tensor]:
    """One ray between `edges`, one sample after the other; every quantity by its definition."""
    near, far = BOUNDS.near, BOUNDS.far
    zero = torch.zeros((), dtype=torch.float64)
    light = {"both": 1.0, "static": 1.0, "dynamic": 1.0}
    colour = {name: torch.zeros(3, dtype=torch.float64) for name in light}
    depth, disparity, dynamic_weight = zero, zero, zero
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start, end, middle = (1 / (s / far + (1 - s) / near) for s in (a, b, (a + b) / 2))
        point = origin + middle * direction
        found = scene.sample(point[None, None], direction[None], time[None])
        metres = (end - start) * float(direction.norm()) / BOUNDS.radius
        s, d = (float(v[0, 0]) * metres for v in (found.static_density, found.dynamic_density))
        static_colour, dynamic_colour = found.static_colour[0, 0], found.dynamic_colour[0, 0]
        w = float(found.blend[0, 0])
        if scene.config.blend == "additive":
            share, swallowed = d / (s + d), 1 - math.exp(-s - d)
        else:
            of_dynamic, of_static = (1 - math.exp(-d)) * w, (1 - math.exp(-s)) * (1 - w)
            share, swallowed = of_dynamic / (of_dynamic + of_static), 1 - (1 - of_dynamic) * (1 - of_static)
        weight = light["both"] * swallowed
        colour["both"] = colour["both"] + weight * (share * dynamic_colour + (1 - share) * static_colour)
        depth, disparity = depth + weight * middle, disparity + weight / middle
        dynamic_weight = dynamic_weight + weight * share
        light["both"] *= 1 - swallowed
        for name, optical, own in (("static", s, static_colour), ("dynamic", d, dynamic_colour)):
            colour[name] = colour[name] + light[name] * (1 - math.exp(-optical)) * own
            light[name] *= math.exp(-optical)
    opacity = 1 - light["both"]
    return {
        "colour": colour["both"] + light["both"] * background,
        "static_colour": colour["static"] + light["static"] * background,
        "dynamic_colour": colour["dynamic"] + light["dynamic"] * background,
        "depth": depth / max(opacity, 1e-4),
        "disparity": disparity + light["both"] / far,
        "opacity": torch.tensor(opacity, dtype=torch.float64),
        "dynamic": dynamic_weight,
    }


@torch.no_grad()
@pytest.mark.parametrize("blend", ["additive", "learned"])
def test_rays_are_those_of_the_slow_walk(blend: Literal["additive", "learned"]) -> None:
    scene, generator = real_scene(blend), torch.Generator().manual_seed(3)
    origins = torch.randn(RAYS, 3, generator=generator, dtype=torch.float64) * 0.3
    directions = torch.randn(RAYS, 3, generator=generator, dtype=torch.float64) * 0.4
    directions[:, 2] -= 1
    times = torch.rand(RAYS, generator=generator, dtype=torch.float64)
    background = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    # The lattice of samples is made in float32; the walk takes it as it is.
    rendering: RayRendering = render_rays(
        scene, origins, directions, times, background, static_alone=True, dynamic_alone=True
    )
    assert 0.05 < float(rendering.dynamic.max()) < 0.95
    for ray in range(RAYS):
        edges = rendering.edges[ray].double()
        expected = walk(scene, origins[ray], directions[ray], times[ray], edges, background)
        for name, value in expected.items():
            torch.testing.assert_close(getattr(rendering, name)[ray].double(), value, atol=2e-6, rtol=2e-5, msg=name)
