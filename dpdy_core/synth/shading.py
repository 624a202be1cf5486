"""Images of worlds: textured surfaces under one sun with soft-edged shadows, ambient light, sky."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dpdy_core.geometry.cameras import Cameras, pixel_centres
from dpdy_core.synth.palette import display, linear
from dpdy_core.synth.raytrace import Hits, PieceList, each, openness, shadowed, squares, trace
from dpdy_core.synth.shapes import ROOM, SHAPES, room_face
from dpdy_core.synth.textures import TEXTURES, mirrored, noise
from dpdy_core.synth.world import FAR, Light, World

# where four rays pass through a pixel, and which part of the sun's disc the shadow ray of each looks at
SAMPLES = ((-0.25, -0.25, 0.0, 0.7), (0.25, -0.25, -0.7, 0.0), (-0.25, 0.25, 0.7, 0.0), (0.25, 0.25, 0.0, -0.7))
CHUNK = {"cpu": 1 << 14, "cuda": 1 << 22}  # pixels at once; on the CPU about what the cache holds
GRAIN_CELL = 0.4  # metres
HAZE = 70.0  # metres after which open ground takes the horizon's colour


@dataclass(frozen=True)
class Images:
    """B images of H x W pixels."""

    rgb: Tensor  # (B, 3, H, W) sRGB in [0, 1]
    depth: Tensor  # (B, 1, H, W) planar z at the pixel centre, metres; sky has FAR
    place: Tensor  # (B, H, W) place of the piece at the pixel centre in `World.pieces`, -1 sky


@dataclass(frozen=True)
class Surface:
    """What is known of N points on surfaces."""

    point: Tensor  # (3, N) world
    normal: Tensor  # (3, N) world, unit
    coordinates: Tensor  # (2, N) metres along the surface
    turn: Tensor  # (N,) metres after which the first coordinate repeats, 0 never
    corner: Tensor  # (N,) share of ambient light left by the walls of a room
    material: Tensor  # (N,) number in the materials of all scenes


@torch.no_grad()
def draw(world: World, cameras: Cameras, refined: float = 1.0) -> Images:
    """Images of scene b by camera b, drawn in chunks of scenes.

    The share `refined` of the pixels, those that differ most from their neighbours, get the mean of 2x2 samples, the
    others one sample at their centre.
    """
    chunk = CHUNK["cpu" if cameras.focal.device.type == "cpu" else "cuda"]
    rows = max(1, min(cameras.height, chunk // cameras.width))
    step = max(1, chunk // (cameras.width * rows))
    parts = []
    for i in range(0, len(world), step):
        some = slice(i, i + step)
        bands = [_draw_chunk(world[some], band, refined) for band in _bands(cameras[some], rows)]
        parts.append([torch.cat(maps, dim=-2) for maps in zip(*bands, strict=True)])
    return Images(*(torch.cat(maps) for maps in zip(*parts, strict=True)))


def _bands(cameras: Cameras, rows: int) -> Iterator[Cameras]:
    """The cameras cut into bands of at most `rows` rows."""
    for top in range(0, cameras.height, rows):
        shift = torch.tensor([0.0, float(top)], device=cameras.focal.device)
        height = min(rows, cameras.height - top)
        yield dataclasses.replace(cameras, principal=cameras.principal - shift, height=height)


def _draw_chunk(world: World, cameras: Cameras, refined: float) -> tuple[Tensor, Tensor, Tensor]:
    """The fields of `Images`."""
    pieces = PieceList(world)
    batch, height, width = len(world), cameras.height, cameras.width
    pixels = pixel_centres(width, height, cameras.focal.device).view(1, -1, 2).expand(batch, -1, -1)
    direction = _rays(cameras, pixels)
    hits = trace(pieces, cameras.centres, direction)
    if refined < 1:
        sun = world.light.direction[..., None].expand_as(direction)
        light = _radiance(world, pieces, cameras, direction, hits, sun)
        chosen = _contrast(display(light).view(batch, 3, height, width)).topk(int(refined * height * width)).indices
        fine = _supersampled(world, pieces, cameras, pixels.gather(1, chosen[..., None].expand(-1, -1, 2)))
        light.scatter_(2, chosen[:, None].expand_as(fine), fine)
    else:
        light = _supersampled(world, pieces, cameras, pixels)
    place = torch.where(hits.piece >= 0, pieces.place[hits.piece.clamp_min(0)] % pieces.places, -1)
    return (
        display(light).view(batch, 3, height, width),
        hits.depth.clamp_max(FAR).view(batch, 1, height, width),
        place.view(batch, height, width),
    )


def _rays(cameras: Cameras, pixels: Tensor) -> Tensor:
    """(B, 3, R) directions, planar depth one, through `pixels` (B, R, 2)."""
    right, down = ((pixels - cameras.principal[:, None]) / cameras.focal[:, None]).unbind(-1)
    return cameras.camera_to_world[:, :, :3] @ torch.stack([right, -down, -torch.ones_like(right)], dim=1)


def _contrast(image: Tensor) -> Tensor:
    """(B, H * W) largest difference of each pixel of `image` (B, 3, H, W) from its four neighbours."""
    contrast = torch.zeros_like(image[:, 0])
    for axis in (1, 2):
        step = image.diff(dim=axis + 1).abs().amax(1)
        size = step.shape[axis]
        for start in (0, 1):
            part = contrast.narrow(axis, start, size)
            part.copy_(torch.maximum(part, step))
    return contrast.flatten(1)


def _supersampled(world: World, pieces: PieceList, cameras: Cameras, pixels: Tensor) -> Tensor:
    """(B, 3, R) mean light of four rays through each of `pixels` (B, R, 2)."""
    samples = torch.tensor(SAMPLES, device=pixels.device)
    direction = _rays(cameras, (pixels[:, None] + samples[:, None, :2]).flatten(1, 2))
    sun = torch.stack([_sun_point(world.light, x, y) for x, y in samples[:, 2:]], dim=2)
    sun = sun.repeat_interleave(pixels.shape[1], 2)
    light = _radiance(world, pieces, cameras, direction, trace(pieces, cameras.centres, direction), sun)
    return light.unflatten(2, (len(SAMPLES), -1)).mean(2)


def _radiance(world: World, pieces: PieceList, cameras: Cameras, direction: Tensor, hits: Hits, sun: Tensor) -> Tensor:
    """(B, 3, R) linear light along rays `direction` (B, 3, R) that met `hits`, from `sun` (B, 3, R)."""
    batch, _, count = direction.shape

    def by_scene(flat: Tensor) -> Tensor:
        """(C, B * R) as (B, C, R)."""
        return flat.view(-1, batch, count).transpose(0, 1)

    view = direction * (direction**2).sum(1, keepdim=True).rsqrt()
    origins = cameras.centres.T[:, :, None].expand(3, batch, count).reshape(3, -1)
    surface = _surface(pieces, origins, direction.transpose(0, 1).reshape(3, -1), hits)
    point, normal = by_scene(surface.point), by_scene(surface.normal)
    depth, met = hits.depth.view(batch, count), (hits.piece >= 0).view(batch, count)
    footprint = depth / cameras.focal[:, :1] / (normal * view).sum(1).abs().clamp_min(0.05)
    colour, gloss = _paint(world, surface, footprint.clamp_max(1e3).flatten())

    light = world.light
    point = point + 2e-3 * normal
    square = squares(pieces, point)
    facing = (normal * sun).sum(1).clamp_min(0)
    direct = facing * ~shadowed(pieces, point, sun, square, (facing > 0) & met)
    half = sun - view
    shine = ((normal * half).sum(1) * (half**2).sum(1).clamp_min(1e-6).rsqrt()).clamp_min(0) ** 40
    ambient = torch.lerp(light.below[..., None], light.above[..., None], (normal[:, 2:] + 1) / 2)
    ambient = ambient * (openness(pieces, point, normal, square) * surface.corner.view(batch, count))[:, None]
    sunlight = light.colour[..., None]
    lit = by_scene(colour) * (sunlight * direct[:, None] + ambient)
    lit = lit + sunlight * (gloss.view(batch, count) * shine * (direct > 0))[:, None]

    out = (~world.in_room).nonzero()[:, 0]
    sky = _sky(light.sky[out], light.direction[out], view[out])
    clear = torch.where(met[out] & (depth[out] < FAR), torch.exp(-((depth[out] / HAZE) ** 2)), 0.0)
    lit[out] = torch.lerp(sky, lit[out], clear[:, None])
    return lit


def _surface(pieces: PieceList, origin: Tensor, direction: Tensor, hits: Hits) -> Surface:
    """The points that were hit; rays without a hit get a harmless point."""
    piece = hits.piece.clamp_min(0)
    point = origin + torch.where(hits.piece >= 0, hits.depth, 1.0) * direction
    own = pieces.to_own(piece, point - pieces.position.index_select(1, piece))
    normal, coordinates = torch.zeros_like(point), torch.zeros_like(point[:2])
    turn, corner = torch.zeros_like(point[0]), torch.ones_like(point[0])
    material = pieces.material[piece]
    for kind, index in each(torch.where(hits.piece >= 0, pieces.shape[piece], -1), len(SHAPES)):
        shape = SHAPES[kind]
        p, size = own.index_select(1, index), pieces.size.index_select(1, piece[index])
        normal[:, index] = shape.normal(p, size)
        coordinates[:, index] = shape.unroll(p, size)
        if shape.turn:
            turn[index] = shape.turn(size)
        if kind == ROOM:
            material[index] += room_face(p, size)
            # the wall that the point is on has distance 0 and takes a constant
            corner[index] = (1 - 0.3 * torch.exp(-(size - p.abs()).clamp_min(0) / 0.3)).prod(0) / 0.7
    return Surface(point, pieces.to_world(piece, normal), coordinates, turn, corner, material)


def _paint(world: World, surface: Surface, footprint: Tensor) -> tuple[Tensor, Tensor]:
    """Linear colour (3, N) and gloss (N,). Patterns finer than `footprint` (N,), metres a pixel, fade to their mean."""
    m = world.materials
    rows = [linear(m.colours).flatten(2).flatten(0, 1), m.offset.flatten(0, 1)]
    rows += [x.flatten()[:, None] for x in (m.scale, m.grain, m.gloss)]
    table = torch.cat(rows, dim=1).T.contiguous().index_select(1, surface.material)
    first, second, offset, (scale, grain, gloss) = table[:3], table[3:6], table[6:8], table[8:]

    closed = surface.turn > 0
    turn = torch.where(closed, (surface.turn / scale).round().clamp_min(1), 0.0)
    cell_width = torch.where(closed, surface.turn / turn.clamp_min(1), scale)
    cells = torch.stack(
        [
            surface.coordinates[0] / cell_width + torch.where(closed, 0.0, offset[0]),
            surface.coordinates[1] / scale + offset[1],
        ]
    )
    share = torch.zeros_like(scale)
    for number, index in each(m.texture.flatten()[surface.material], len(TEXTURES)):
        pattern, mean = list(TEXTURES.values())[number]
        value = pattern(cells.index_select(1, index), turn[index])
        kept = (2 - 3 * footprint[index] / scale[index]).clamp(0, 1)
        share[index] = mean + (value - mean) * kept
    colour = torch.lerp(first, second, share)
    fine = noise(mirrored(surface.coordinates / GRAIN_CELL, turn)) - 0.5
    return colour * (1 + grain * fine), gloss


def _sun_point(light: Light, x: float, y: float) -> Tensor:
    """(B, 3) unit vectors towards the point x, y of the sun's disc, in its radii."""
    up = torch.tensor([0.0, 0.0, 1.0], device=light.direction.device).expand_as(light.direction)
    side = normalize(torch.linalg.cross(light.direction, up), dim=-1)
    other = torch.linalg.cross(side, light.direction)
    return normalize(light.direction + light.extent[:, None] * (x * side + y * other), dim=-1)


def _sky(colours: Tensor, sun: Tensor, view: Tensor) -> Tensor:
    """(B, 3, R) colour of the sky, `colours` (B, 2, 3), in the unit directions `view` (B, 3, R); the clouds differ with
    the sun (B, 3)."""
    rise = view[:, 2:].clamp_min(0)
    plain = torch.lerp(colours[:, 0, :, None], colours[:, 1, :, None], rise.sqrt())
    cells = view[:, :2] / (rise + 0.2) * 2.0 + 10 * sun[:, :2, None]
    cloud = noise(cells.transpose(0, 1).flatten(1)).view_as(rise)
    return torch.lerp(plain, torch.ones_like(plain), ((cloud - 0.6) * 2).clamp(0, 0.6) * (rise * 8).clamp(0, 1))
