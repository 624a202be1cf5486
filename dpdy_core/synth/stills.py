"""Random posed scenes for single images: what is in them, how it is lit, from where it is seen.

Everything is drawn on the CPU in float32, so that equal seeds give equal scenes on every device.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.synth.objects import HELD_OUT_KINDS, PAINTS, TRAIN_KINDS, Pieces, assemble, yaw
from dpdy_core.synth.palette import COLOUR_NAMES, HELD_OUT_TEXTURES, TRAIN_TEXTURES, colour_table, texture_numbers
from dpdy_core.synth.shapes import GROUND, ROOM
from dpdy_core.synth.world import Light, Materials, World

Split = Literal["train", "held-out"]
MAX_OBJECTS = 6
COUNT_WEIGHTS = (0.32, 0.22, 0.17, 0.13, 0.10, 0.06)  # one to six objects
SIZES = ((0.45, 0.6), (0.7, 0.9), (1.05, 1.3))  # metres: small, usual, large
HEIGHTS = ((0.45, 0.65), (0.9, 1.1), (1.45, 1.9))  # stretch: flat, usual, tall
BACKGROUND_MATERIALS = 4
SKIES = (  # horizon and zenith (linear), sun, ambient: blue, grey, sunset
    ((0.62, 0.78, 0.95), (0.13, 0.33, 0.75), (1.05, 1.0, 0.9), (0.34, 0.40, 0.50)),
    ((0.66, 0.68, 0.71), (0.44, 0.47, 0.52), (0.35, 0.35, 0.35), (0.62, 0.64, 0.68)),
    ((0.95, 0.55, 0.30), (0.22, 0.24, 0.48), (1.15, 0.72, 0.42), (0.34, 0.30, 0.38)),
)
SKY_WORDS = ("blue", "grey", "sunset")
GROUND_COLOURS = ("green", "brown", "beige", "grey", "lime", "orange")


class Dice:
    """Random numbers on the CPU from a generator of any device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        values = torch.rand(shape, generator=self.generator, device=self.generator.device).cpu()
        return low + (high - low) * values

    def pick(self, weights: tuple[float, ...] | Tensor, *shape: int) -> Tensor:
        """Indices with probabilities in proportion to `weights`."""
        steps = torch.as_tensor(weights, dtype=torch.float32).cumsum(0)
        return torch.searchsorted(steps / steps[-1], self.uniform(0, 1, *shape), right=True).clamp_max(len(steps) - 1)

    def within(self, ranges: tuple[tuple[float, float], ...], choice: Tensor) -> Tensor:
        """Uniform within the range numbered by `choice`."""
        low, high = torch.tensor(ranges)[choice].unbind(-1)
        return low + (high - low) * self.uniform(0, 1, *choice.shape)


@dataclass(frozen=True)
class Stills:
    """B random scenes, their cameras and what captions need to know. K = MAX_OBJECTS, Q materials."""

    world: World
    cameras: Cameras
    kind: Tensor  # (B, K) number in KINDS, -1 none
    size: Tensor  # (B, K) 0 small, 1 usual, 2 large
    height: Tensor  # (B, K) 0 flat, 1 usual, 2 tall
    colour: Tensor  # (B, Q, 2) number in COLOUR_NAMES
    indoors: Tensor  # (B,)
    sky: Tensor  # (B,) number in SKY_WORDS


def draw_stills(count: int, image_size: int, generator: torch.Generator, split: Split) -> Stills:
    """`count` random scenes of `split` with square cameras of `image_size` pixels, on the CPU."""
    dice = Dice(generator)
    number = dice.pick(COUNT_WEIGHTS, count) + 1
    kind = _draw_kinds(dice, count, split)
    kind = torch.where(torch.arange(MAX_OBJECTS) < number[:, None], kind, -1)
    size, height = dice.pick((1, 2, 1), count, MAX_OBJECTS), dice.pick((1, 3, 1), count, MAX_OBJECTS)
    scale = dice.within(SIZES, size)
    wide = dice.uniform(0.8, 1.25, count, MAX_OBJECTS, 2)
    stretch = torch.cat([wide, dice.within(HEIGHTS, height)[..., None]], dim=-1)
    radius = 0.62 * scale * wide.amax(-1)
    position = _arrange(dice, radius, kind >= 0)
    rotation = yaw(dice.uniform(0, 2 * math.pi, count, MAX_OBJECTS))

    bound, middle = _bound(position, radius, scale * stretch[..., 2], kind >= 0)
    cameras = _aim(dice, middle, bound, number == 1, image_size)
    indoors = dice.uniform(0, 1, count) < 0.6
    background = _background(dice, cameras.centres, middle, bound, indoors)
    objects = assemble(kind, scale, stretch, position, rotation, BACKGROUND_MATERIALS)
    colour, materials = _draw_materials(dice, scale, indoors, split)
    sky = dice.pick((0.5, 0.3, 0.2), count)
    light = _draw_light(dice, sky, indoors)
    world = World(background.joined(objects).compacted(), materials, light)
    return Stills(world, cameras, kind, size, height, colour, indoors, sky)


def _draw_kinds(dice: Dice, count: int, split: Split) -> Tensor:
    """(count, K) numbers in KINDS: single solids more often than composites, words equally often."""
    kinds, first = (TRAIN_KINDS, 0) if split == "train" else (HELD_OUT_KINDS, len(TRAIN_KINDS))
    words = [kind.word for kind in kinds]
    usable = [kind.word not in ("rug", "picture") for kind in kinds]
    composite = [0.5 if split == "train" and len(kind.parts) > 1 else 1.0 for kind in kinds]
    weights = [u * c / words.count(w) for u, c, w in zip(usable, composite, words, strict=True)]
    return dice.pick(torch.tensor(weights), count, MAX_OBJECTS) + first


def _arrange(dice: Dice, radius: Tensor, present: Tensor) -> Tensor:
    """(B, K, 3) feet on the floor: each object takes the candidate that keeps its distance and is near the middle."""
    batch, count = radius.shape
    position = torch.zeros(batch, count, 3)
    spread = 0.45 * (radius * present).sum(1).clamp_min(0.3)
    for k in range(count):
        angle, share = dice.uniform(0, 2 * math.pi, batch, 24), dice.uniform(0.1, 1.8, batch, 24)
        place = (share * spread[:, None])[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
        gap = torch.cdist(place, position[:, :k, :2]) - radius[:, None, :k] - radius[:, k, None, None]
        gap = gap.masked_fill(~present[:, None, :k], torch.inf)
        free = gap.amin(-1).clamp_max(0.1) if k else torch.full_like(angle, 0.1)
        best = (20 * free - place.norm(dim=-1)).argmax(1)
        position[:, k, :2] = place[torch.arange(batch), best]
    return position


def _bound(position: Tensor, radius: Tensor, height: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Radius (B,) and centre (B, 3) of a ball about all objects."""
    weight = present.float()[..., None]
    middle = (position * weight).sum(1) / weight.sum(1)
    middle[:, 2] = 0.4 * (height * present).amax(1)
    reach = (position[..., :2] - middle[:, None, :2]).norm(dim=-1) + radius
    return torch.maximum((reach * present).amax(1), 0.6 * (height * present).amax(1)), middle


def _aim(dice: Dice, middle: Tensor, bound: Tensor, alone: Tensor, image_size: int) -> Cameras:
    """Cameras above the floor that see the objects, single ones often off the middle."""
    batch = len(bound)
    focal = dice.uniform(0.9, 1.7, batch)
    fill = torch.where(alone, dice.uniform(0.5, 1.15, batch), dice.uniform(0.85, 1.3, batch))
    distance = bound * 2 * focal / fill
    azimuth, rise = dice.uniform(0, 2 * math.pi, batch), dice.uniform(0.08, 0.8, batch)
    outward = torch.stack([azimuth.cos() * rise.cos(), azimuth.sin() * rise.cos(), rise.sin()], dim=-1)
    centre = middle + distance[:, None] * outward
    shift = (bound / fill)[:, None] * torch.where(alone, 0.75, 0.3)[:, None]
    sideways = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros(batch)], dim=-1)
    off = dice.uniform(-1, 1, batch)[:, None] * sideways + dice.uniform(-0.4, 0.4, batch)[:, None] * torch.eye(3)[2]
    return Cameras(
        camera_to_world=look_at(centre, middle + shift * off, torch.tensor([0.0, 0.0, 1.0])),
        focal=(focal * image_size)[:, None].expand(batch, 2).contiguous(),
        principal=torch.full((batch, 2), image_size / 2),
        width=image_size,
        height=image_size,
    )


def _background(dice: Dice, camera: Tensor, middle: Tensor, bound: Tensor, indoors: Tensor) -> Pieces:
    """One piece a scene: a room that holds camera and objects, or the ground."""
    batch = len(bound)
    turn = yaw(dice.uniform(0, 2 * math.pi, batch))
    seat, seen = (torch.einsum("bji,bj->bi", turn, v)[:, :2] for v in (camera, middle))
    low = torch.minimum(seat - 0.3, seen - bound[:, None]) - dice.uniform(0.1, 1.8, batch, 2)
    high = torch.maximum(seat + 0.3, seen + bound[:, None]) + dice.uniform(0.1, 1.8, batch, 2)
    ceiling = torch.maximum(camera[:, 2] + 0.3, 2 * bound) + dice.uniform(0.2, 1.5, batch)
    half = torch.cat([(high - low) / 2, ceiling[:, None] / 2], dim=1)
    centre = torch.cat([(high + low) / 2, ceiling[:, None] / 2], dim=1)
    position = torch.einsum("bij,bj->bi", turn, centre)
    zero = torch.zeros(batch, 1, dtype=torch.long)
    return Pieces(
        shape=torch.where(indoors, ROOM, GROUND)[:, None],
        position=torch.where(indoors[:, None], position, torch.zeros(3))[:, None],
        rotation=torch.where(indoors[:, None, None], turn, torch.eye(3))[:, None],
        size=half[:, None],
        owner=zero,
        material=zero,
    )


def _draw_materials(dice: Dice, scale: Tensor, indoors: Tensor, split: Split) -> tuple[Tensor, Materials]:
    """Colour numbers (B, Q, 2) and materials. In the training split half of the surfaces are plain."""
    batch, objects = scale.shape
    count = BACKGROUND_MATERIALS + PAINTS * objects
    if split == "train":
        choice = dice.pick((len(TRAIN_TEXTURES) - 1.0, *(1.0,) * (len(TRAIN_TEXTURES) - 1)), batch, count)
        texture = texture_numbers(TRAIN_TEXTURES)[choice]
    else:
        texture = texture_numbers(HELD_OUT_TEXTURES)[dice.pick((1.0,) * len(HELD_OUT_TEXTURES), batch, count)]
    texture[:, 3] = texture[:, 2]  # all walls alike
    colours = len(COLOUR_NAMES)
    first = dice.pick((1.0,) * colours, batch, count)
    natural = torch.tensor([COLOUR_NAMES.index(name) for name in GROUND_COLOURS])[dice.pick((3, 2, 2, 2, 1, 1), batch)]
    first[:, 0] = torch.where(indoors, first[:, 0], natural)
    first[:, 1] = COLOUR_NAMES.index("white")
    first[:, 3] = first[:, 2]
    second = (first + 1 + dice.pick((1.0,) * (colours - 1), batch, count)) % colours
    second[:, 3] = second[:, 2]
    number = torch.stack([first, second], dim=-1)
    jitter = dice.uniform(-0.06, 0.06, batch, count, 2, 3)
    jitter[:, 3] = jitter[:, 2]
    cell = dice.uniform(0.22, 0.5, batch, count)
    cell[:, :BACKGROUND_MATERIALS] = dice.uniform(0.35, 1.0, batch, BACKGROUND_MATERIALS)
    cell[:, 3] = cell[:, 2]
    cell[:, BACKGROUND_MATERIALS:] *= scale.repeat_interleave(PAINTS, 1)
    return number, Materials(
        texture=texture,
        colours=(colour_table()[number] + jitter).clamp(0.02, 0.98),
        scale=cell,
        offset=dice.uniform(0, 16, batch, count, 2),
        grain=dice.uniform(-0.3, 0.3, batch, count).clamp_min(0),
        gloss=dice.uniform(-0.4, 0.4, batch, count).clamp_min(0),
    )


def _draw_light(dice: Dice, sky: Tensor, indoors: Tensor) -> Light:
    """A sun 30 to 70 degrees high; a room has a lamp of its own."""
    batch = len(sky)
    horizon, zenith, sun, ambient = (torch.tensor([s[i] for s in SKIES])[sky] for i in range(4))
    azimuth, rise = dice.uniform(0, 2 * math.pi, batch), dice.uniform(0.5, 1.2, batch)
    strength = dice.uniform(0.55, 0.95, batch)[:, None]
    warmth = dice.uniform(0, 1, batch)[:, None] * torch.tensor([0.0, 0.08, 0.2])
    inside = indoors[:, None]
    above = torch.where(inside, dice.uniform(0.3, 0.5, batch)[:, None].expand(-1, 3), ambient)
    return Light(
        direction=torch.stack([azimuth.cos() * rise.cos(), azimuth.sin() * rise.cos(), rise.sin()], dim=-1),
        colour=torch.where(inside, strength * (1 - warmth), sun * (0.7 + 0.3 * strength)),
        extent=dice.uniform(0.02, 0.12, batch),
        above=above,
        below=above * dice.uniform(0.45, 0.75, batch)[:, None],
        sky=torch.stack([horizon, zenith], dim=1),
    )
