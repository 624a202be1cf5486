"""Rays and whole images of a scene."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.render.compositing import composite, volume_weights
from dpdy_core.render.sampling import depth_at, importance, stratified
from dpdy_core.scene.scene import Scene

CPU_CHUNK = 2048  # rays at once on a CPU: more only miss its caches


@dataclass(frozen=True)
class RayRendering:
    """R rendered rays and what the losses need to know about their samples."""

    colour: Tensor  # (R, 3), over the background
    static_colour: Tensor | None  # (R, 3) of the static field alone, over the background
    dynamic_colour: Tensor | None  # (R, 3) of the dynamic field alone, over the background
    depth: Tensor  # (R,) expected planar depth, world units
    disparity: Tensor  # (R,) expected 1 / depth, 1 / world units
    opacity: Tensor  # (R,)
    dynamic: Tensor  # (R,) weight of the dynamic field, at most `opacity`
    edges: Tensor  # (R, S + 1) of the fine intervals, in s
    weights: Tensor  # (R, S)
    ratio: Tensor  # (R, S) dynamic share of each sample
    shadow: Tensor  # (R, S) share of the static colour of each sample that is lost
    proposal_edges: Tensor  # (R, P + 1)
    proposal_weights: Tensor  # (R, P)


@dataclass(frozen=True)
class Rendering:
    """One image."""

    colour: Tensor  # (H, W, 3) in [0, 1]
    depth: Tensor  # (H, W) planar z in camera units
    opacity: Tensor  # (H, W)
    dynamic: Tensor  # (H, W) share of the opacity owned by the dynamic field, in [0, 1]


def render_rays(
    scene: Scene,
    origins: Tensor,
    directions: Tensor,
    times: Tensor,
    background: Tensor,
    generator: torch.Generator | None = None,
    anneal: float = 1.0,
    static_alone: bool = False,
    dynamic_alone: bool = False,
) -> RayRendering:
    """Render rays `origins + z * directions` (R, 3) at `times` (R,), z being planar depth, over `background` (3,).

    A `generator` (training) jitters the samples; `anneal` below one flattens the proposal's weights (mip-NeRF 360,
    section 5), so that early mistakes of the proposal do not blind the fields.
    """
    bounds = scene.bounds
    stretch = directions.norm(dim=-1, keepdim=True) / bounds.radius  # normalised length per unit of planar depth

    def lay_out(edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        depth = depth_at(edges, bounds.near, bounds.far)
        middle = depth_at((edges[:, 1:] + edges[:, :-1]) / 2, bounds.near, bounds.far)
        return (
            middle,
            (depth[:, 1:] - depth[:, :-1]) * stretch,
            origins[:, None] + middle[..., None] * directions[:, None],
        )

    proposal_edges = stratified(len(origins), scene.sampling.proposal, origins.device, generator)
    _, lengths, points = lay_out(proposal_edges)
    proposal_weights = volume_weights(scene.propose(points, times), lengths)

    edges = importance(proposal_edges, proposal_weights.detach() ** anneal, scene.sampling.fine, generator)
    middle, lengths, points = lay_out(edges)
    samples = scene.sample(points, directions, times)
    result = composite(samples, lengths, scene.config.blend)
    opacity = result.weights.sum(dim=-1)
    remaining = (1 - opacity)[:, None]

    def alone(density: Tensor, colour: Tensor) -> Tensor:
        weights = volume_weights(density, lengths)
        return (weights[..., None] * colour).sum(dim=1) + (1 - weights.sum(dim=-1, keepdim=True)) * background

    return RayRendering(
        colour=result.colour + remaining * background,
        static_colour=alone(samples.static_density, samples.static_colour) if static_alone else None,
        dynamic_colour=alone(samples.dynamic_density, samples.dynamic_colour) if dynamic_alone else None,
        depth=(result.weights * middle).sum(dim=-1) / opacity.clamp_min(1e-4),
        disparity=(result.weights / middle).sum(dim=-1) + remaining[:, 0] / bounds.far,
        opacity=opacity,
        dynamic=result.dynamic_weights.sum(dim=-1),
        edges=edges,
        weights=result.weights,
        ratio=result.ratio,
        shadow=samples.shadow,
        proposal_edges=proposal_edges,
        proposal_weights=proposal_weights,
    )


@torch.no_grad()
def render_camera(
    scene: Scene, cameras: Cameras, index: int, time: float, chunk: int, check: Callable[[], None] | None = None
) -> Rendering:
    """The whole image of camera `index` at `time` in [0, 1], `chunk` rays at once, over black.

    `check` is called before every chunk and may raise to stop.
    """
    device = next(scene.parameters()).device
    if device.type == "cpu":
        chunk = min(chunk, CPU_CHUNK)
    origins, directions = (rays.reshape(-1, 3) for rays in cameras.to(device).image_rays(index))
    parts = []
    for start in range(0, len(origins), chunk):
        if check is not None:
            check()
        some = slice(start, start + chunk)
        times = torch.full((len(origins[some]),), time, device=device)
        rendered = render_rays(scene, origins[some], directions[some], times, origins.new_zeros(3))
        share = rendered.dynamic / rendered.opacity.clamp_min(1e-4)
        parts.append((rendered.colour.clamp(0, 1), rendered.depth, rendered.opacity, share.clamp(0, 1)))
    shape = (cameras.height, cameras.width)
    colour, depth, opacity, dynamic = (torch.cat(part) for part in zip(*parts, strict=True))
    return Rendering(colour.view(*shape, 3), depth.view(shape), opacity.view(shape), dynamic.view(shape))
