"""Moving scenes of several kinds in a furnished room, for captures. Layouts are fixed; looks and details vary by seed.

The camera's side is -y; the target is about (0, 0.25, 0.45). Objects and textures are of the held-out split.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.synth.motion import Motion, circle, drive, rest, spin, swing
from dpdy_core.synth.objects import PAINTS, Pieces, assemble, kind_number
from dpdy_core.synth.palette import COLOUR_NAMES, colour_table, texture_numbers
from dpdy_core.synth.plants import Stalk
from dpdy_core.synth.shapes import ROOM
from dpdy_core.synth.stills import BACKGROUND_MATERIALS, Dice
from dpdy_core.synth.world import Light, Materials, World

ROOM_CENTRE, ROOM_HALF = (0.0, -0.45, 1.2), (2.3, 2.35, 1.2)  # metres
BACK_WALL = ROOM_CENTRE[1] + ROOM_HALF[1]
# pairs of colours that go together, pattern and its second colour
PAIRS = (
    ("red", "beige"),
    ("teal", "white"),
    ("orange", "brown"),
    ("blue", "white"),
    ("yellow", "orange"),
    ("green", "lime"),
    ("purple", "pink"),
    ("cyan", "blue"),
    ("pink", "white"),
    ("beige", "brown"),
)
WALLS = (("beige", "white"), ("cyan", "white"), ("lime", "beige"), ("pink", "beige"), ("grey", "white"))


@dataclass(frozen=True)
class Actor:
    """One object of a moving scene."""

    word: str
    scale: float  # metres
    motion: Motion
    moves: bool = False
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class MovingScene:
    """A room with actors and plants, as a function of time."""

    actors: list[Actor]
    stalks: list[Stalk]
    materials: Materials  # of one scene
    light: Light
    sweep: float  # degrees of the camera's arc

    def at(self, times: Tensor) -> World:
        """The scene at `times` (T,) in [0, 1], on the CPU. Piece p is the same material part at all times."""
        frames = len(times)
        placed = [actor.motion(times) for actor in self.actors]
        pieces = _room(frames).joined(
            assemble(
                kind=torch.tensor([kind_number(a.word) for a in self.actors]).expand(frames, -1),
                scale=torch.tensor([a.scale for a in self.actors]).expand(frames, -1),
                stretch=torch.tensor([a.stretch for a in self.actors]).expand(frames, -1, 3),
                position=torch.stack([position for position, _ in placed], 1),
                rotation=torch.stack([rotation for _, rotation in placed], 1),
                first_material=BACKGROUND_MATERIALS,
            )
        )
        for i, stalk in enumerate(self.stalks, start=len(self.actors)):
            pieces = pieces.joined(stalk.pieces(times, i + 1, BACKGROUND_MATERIALS + PAINTS * i))
        still = World(Pieces(*(t[:1] for t in pieces.fields())), self.materials, self.light)
        repeated = still[[0] * frames]
        return World(pieces.compacted(), repeated.materials, repeated.light)

    @property
    def moving(self) -> Tensor:
        """(owners,) whether the pieces of an owner move at any time; owner 0 is the room."""
        return torch.tensor([False, *(actor.moves for actor in self.actors), *(True for _ in self.stalks)])


def rigid(dice: Dice) -> tuple[list[Actor], list[Stalk], float]:
    """A car passes behind a mug, a dumbbell turns, a robot hops."""
    angle, shift = _angles(dice), _shifts(dice)
    actors = [
        Actor("mug", 0.55, rest(shift[0], 0.1 + shift[1], 0, angle[0])),
        Actor("car", 0.6, drive((-0.95, 0.45 + shift[2]), (0.95, 0.6 + shift[3]), 0.12), True),
        Actor("dumbbell", 0.42, spin(0.78 + shift[4], -0.3, angle[1], 3.6), True),
        Actor("robot", 0.7, spin(-0.35 + shift[5], 1.2, angle[2], 1.5, 0.25), True),
        Actor("lamp", 1.15, rest(-1.2, 1.1 + shift[6], 0, angle[3])),
        Actor("tower", 0.95, rest(1.15 + shift[7], 1.2, 0, angle[4])),
        Actor("mushroom", 0.5, rest(-0.8, -0.25 + shift[8], 0, angle[5])),
        Actor("table", 0.6, rest(0.4 + shift[9], 1.35, 0, 0.2)),
    ]
    return actors + _furniture(), [], 30.0


def bending(dice: Dice) -> tuple[list[Actor], list[Stalk], float]:
    """Plants in pots sway in the wind."""
    angle, shift = _angles(dice), _shifts(dice)
    pots = ((-0.7 + shift[0], 0.35, 0.5), (0.6 + shift[1], 0.75, 0.6), (0.25 + shift[2], -0.35, 0.35))
    actors = [
        *(Actor("pot", size, rest(x, y, 0, a)) for (x, y, size), a in zip(pots, angle, strict=False)),
        Actor("lamp", 1.2, rest(-1.3, 1.2 + shift[3], 0, angle[3])),
        Actor("mug", 0.45, rest(-0.15, 0.95 + shift[4], 0, angle[4])),
        Actor("snowman", 0.7, rest(1.35 + shift[5], 0.35, 0, angle[5])),
        Actor("table", 0.65, rest(-0.25, 1.45 + shift[6], 0, 0.1)),
    ]
    stalks: list[Stalk] = []
    for x, y, size in pots:
        for _ in range(3 if size > 0.4 else 2):
            around, length, sway, lean, waves, phase = dice.uniform(0, 1, 6).tolist()
            azimuth = 2 * math.pi * (around + len(stalks)) / 3
            root = (x + 0.15 * size * math.cos(azimuth), y + 0.15 * size * math.sin(azimuth), 0.8 * size)
            tall = size * (1.3 + 0.7 * length)
            stalks.append(
                Stalk(root, tall, 0.25 + 0.5 * lean, azimuth, 0.5 + 0.4 * sway, 1.0 + waves, 2 * math.pi * phase)
            )
    return actors + _furniture(), stalks, 30.0


def occlusion(dice: Dice) -> tuple[list[Actor], list[Stalk], float]:
    """A car and a robot cross behind a row of pillars."""
    angle, shift = _angles(dice), _shifts(dice)
    actors = [
        *(Actor("pillar", 0.8, rest(x + s, -0.15, 0, 0)) for x, s in zip((-0.75, 0.0, 0.75), shift, strict=False)),
        Actor("car", 0.75, drive((-1.2, 0.35 + shift[3]), (1.2, 0.3), 0.1), True),
        Actor("robot", 0.85, drive((1.1, 0.95 + shift[4]), (-1.1, 0.9), 0.1), True),
        Actor("dumbbell", 0.4, spin(-0.35 + shift[5], -0.65, angle[0], 3.0), True),
        Actor("lamp", 1.15, rest(-1.35, 1.4, 0, angle[1])),
        Actor("tower", 0.9, rest(1.45 + shift[6], 1.35, 0, angle[2])),
        Actor("mushroom", 0.45, rest(0.45, -0.6 + shift[7], 0, angle[3])),
    ]
    return actors + _furniture(), [], 30.0


def static_camera(dice: Dice) -> tuple[list[Actor], list[Stalk], float]:
    """A car on a circle, a hopping snowman and a rocking lamp before an almost fixed camera."""
    angle, shift = _angles(dice), _shifts(dice)
    actors = [
        Actor("mushroom", 0.65, rest(shift[0], 0.35, 0, angle[0])),
        Actor("car", 0.6, circle((0.0, 0.35), 0.75 + shift[1], angle[1], 4.5), True),
        Actor("snowman", 0.6, spin(0.95 + shift[2], 1.3, angle[2], 4.0, 0.4, 3.0), True),
        Actor("lamp", 1.1, swing(-1.15, 1.2 + shift[3], angle[3], 0.3, 1.5, angle[4], 0.33), True),
        Actor("mug", 0.5, rest(-1.0, -0.3 + shift[4], 0, angle[5])),
        Actor("tower", 0.8, rest(1.2 + shift[5], 0.1, 0, angle[6])),
        Actor("table", 0.65, rest(0.05 + shift[6], 1.5, 0, 0.1)),
    ]
    return actors + _furniture(), [], 1.5


SCENES: dict[str, Callable[[Dice], tuple[list[Actor], list[Stalk], float]]] = {
    "rigid": rigid,
    "bending": bending,
    "occlusion": occlusion,
    "static-camera": static_camera,
}


def build_scene(name: str, seed: int) -> MovingScene:
    """The scene `name` of SCENES; equal seeds give equal scenes."""
    dice = Dice(torch.Generator().manual_seed(seed))
    actors, stalks, sweep = SCENES[name](dice)
    return MovingScene(actors, stalks, _materials(dice, actors, stalks), _light(dice), sweep)


def _angles(dice: Dice) -> list[float]:
    values: list[float] = dice.uniform(0, 2 * math.pi, 8).tolist()
    return values


def _shifts(dice: Dice) -> list[float]:
    values: list[float] = dice.uniform(-0.07, 0.07, 12).tolist()
    return values


def _furniture() -> list[Actor]:
    """What hangs and lies in every room."""
    quarter = math.pi / 2
    left, right = -ROOM_HALF[0] + 0.05, ROOM_HALF[0] - 0.05
    return [
        Actor("picture", 0.7, rest(-0.75, BACK_WALL - 0.03, 1.15)),
        Actor("picture", 0.8, rest(0.7, BACK_WALL - 0.03, 1.1)),
        Actor("picture", 0.8, rest(left, 0.8, 0.9, quarter)),
        Actor("picture", 0.7, rest(right, 0.6, 1.0, quarter)),
        Actor("rug", 1.0, rest(0.0, 0.2), stretch=(2.2, 1.7, 1.0)),
    ]


def _room(frames: int) -> Pieces:
    one = torch.ones(frames, 1, dtype=torch.long)
    return Pieces(
        shape=ROOM * one,
        position=torch.tensor(ROOM_CENTRE).expand(frames, 1, 3),
        rotation=torch.eye(3).expand(frames, 1, 3, 3),
        size=torch.tensor(ROOM_HALF).expand(frames, 1, 3),
        owner=0 * one,
        material=0 * one,
    )


def _materials(dice: Dice, actors: list[Actor], stalks: list[Stalk]) -> Materials:
    """One scene's materials: a wooden floor, pastel walls, and pairs of colours that go together."""
    scale = [actor.scale for actor in actors] + [0.6] * len(stalks)
    count = BACKGROUND_MATERIALS + PAINTS * len(scale)
    pairs = [PAIRS[i] for i in dice.pick((1.0,) * len(PAIRS), count).tolist()]
    textures = [("tiled", "patched", "zigzag", "wooden")[i] for i in dice.pick((2, 3, 2, 1), count).tolist()]
    walls = dice.pick((1.0,) * len(WALLS), 2).tolist()
    pairs[:4] = [("beige", "brown"), ("white", "beige"), WALLS[walls[0]], WALLS[walls[1]]]
    textures[:4] = ["wooden", "tiled", "patched", "tiled"]
    rug = BACKGROUND_MATERIALS + PAINTS * [actor.word for actor in actors].index("rug")
    textures[rug] = ("tiled", "zigzag")[int(dice.pick((1, 1), 1))]
    for i in range(len(actors), len(scale)):
        pairs[BACKGROUND_MATERIALS + PAINTS * i] = ("green", "lime")
        textures[BACKGROUND_MATERIALS + PAINTS * i] = "zigzag"
    number = torch.tensor([[COLOUR_NAMES.index(name) for name in pair] for pair in pairs])
    cell = dice.uniform(0.18, 0.3, count)
    cell[BACKGROUND_MATERIALS:] *= torch.tensor(scale).clamp(0.5, 1).repeat_interleave(PAINTS)
    cell[:BACKGROUND_MATERIALS] = torch.tensor([0.35, 0.5, 0.4, 0.35])
    return Materials(
        texture=texture_numbers(tuple(textures))[None],
        colours=(colour_table()[number] + dice.uniform(-0.05, 0.05, count, 2, 3)).clamp(0.05, 0.95)[None],
        scale=cell[None],
        offset=dice.uniform(0, 16, count, 2)[None],
        grain=torch.full((1, count), 0.45),
        gloss=dice.uniform(-0.15, 0.15, 1, count).clamp_min(0),
    )


def _light(dice: Dice) -> Light:
    """A warm lamp high on the camera's side."""
    azimuth, rise = dice.uniform(-2.4, -0.7, 1), dice.uniform(0.85, 1.15, 1)
    above = torch.tensor([[0.46, 0.47, 0.50]])
    return Light(
        direction=torch.stack([azimuth.cos() * rise.cos(), azimuth.sin() * rise.cos(), rise.sin()], dim=-1),
        colour=torch.tensor([[0.72, 0.67, 0.58]]),
        extent=torch.tensor([0.05]),
        above=above,
        below=above * 0.7,
        sky=torch.zeros(1, 2, 3),
    )
