"""Kinds of objects, each put together from a few shapes, and their pieces placed in scenes.

An object of scale 1 is about 1 m tall, stands on z = 0 and is centred on the z axis; a vehicle drives along +x.
"""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dpdy_core.synth.shapes import BOX, CAPSULE, ELLIPSOID, FRUSTUM, TORUS


class Part(NamedTuple):
    """One shape of an object; its z axis points along `axis` of the object."""

    shape: int
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    axis: str = "z"
    paint: int = 0  # which of the object's two materials


class Kind(NamedTuple):
    """A word and what it looks like. Stretchable kinds may be made wider or taller."""

    word: str
    parts: tuple[Part, ...]
    stretchable: bool = False


def _ball(z: float, radius: float, paint: int = 0, x: float = 0.0) -> Part:
    return Part(ELLIPSOID, (x, 0, z), (radius, radius, radius), "z", paint)


def _legs(x: float, y: float, half: float, radius: float) -> tuple[Part, ...]:
    return tuple(Part(FRUSTUM, (i, j, half), (radius * 0.8, radius, half), "z", 1) for i in (-x, x) for j in (-y, y))


TRAIN_KINDS = (
    Kind("ball", (_ball(0.5, 0.5),)),
    Kind("egg", (Part(ELLIPSOID, (0, 0, 0.5), (0.36, 0.36, 0.5)),)),
    Kind("box", (Part(BOX, (0, 0, 0.4), (0.4, 0.4, 0.4)),), True),
    Kind("cylinder", (Part(FRUSTUM, (0, 0, 0.45), (0.36, 0.36, 0.45)),), True),
    Kind("cylinder", (Part(FRUSTUM, (0, 0, 0.36), (0.36, 0.36, 0.45), "x"),)),
    Kind("cone", (Part(FRUSTUM, (0, 0, 0.5), (0.45, 0.0, 0.5)),), True),
    Kind("capsule", (Part(CAPSULE, (0, 0, 0.5), (0.26, 0.26, 0.24)),)),
    Kind("capsule", (Part(CAPSULE, (0, 0, 0.26), (0.26, 0.26, 0.3), "x"),)),
    Kind("ring", (Part(TORUS, (0, 0, 0.5), (0.36, 0.14, 0.36), "y"),)),
    Kind("ring", (Part(TORUS, (0, 0, 0.15), (0.4, 0.15, 0.4)),)),
    Kind("tree", (Part(FRUSTUM, (0, 0, 0.25), (0.1, 0.08, 0.25), "z", 1), _ball(0.72, 0.32))),
    Kind("stool", (Part(FRUSTUM, (0, 0, 0.62), (0.4, 0.4, 0.06)), *_legs(0.22, 0.22, 0.28, 0.06))),
)
HELD_OUT_KINDS = (
    Kind(
        "mug",
        (
            Part(FRUSTUM, (0, 0, 0.45), (0.33, 0.37, 0.45)),
            Part(FRUSTUM, (0, 0, 0.46), (0.28, 0.31, 0.445), "z", 1),
            Part(TORUS, (0.38, 0, 0.46), (0.22, 0.06, 0.22), "y", 1),
        ),
    ),
    Kind(
        "lamp",
        (
            Part(FRUSTUM, (0, 0, 0.03), (0.3, 0.26, 0.03), "z", 1),
            Part(CAPSULE, (0, 0, 0.4), (0.035, 0.035, 0.38), "z", 1),
            Part(FRUSTUM, (0, 0, 0.86), (0.36, 0.19, 0.2)),
        ),
    ),
    Kind(
        "car",
        (
            Part(BOX, (0, 0, 0.27), (0.56, 0.25, 0.14)),
            Part(BOX, (-0.06, 0, 0.52), (0.3, 0.21, 0.13), "z", 1),
            *(Part(FRUSTUM, (x, y, 0.15), (0.15, 0.15, 0.05), "y", 1) for x in (-0.34, 0.34) for y in (-0.27, 0.27)),
        ),
    ),
    Kind("mushroom", (Part(FRUSTUM, (0, 0, 0.3), (0.17, 0.12, 0.3), "z", 1), _ball(0.6, 0.42))),
    Kind(
        "tower",
        (
            Part(BOX, (0, 0, 0.2), (0.34, 0.34, 0.2)),
            Part(FRUSTUM, (0, 0, 0.58), (0.27, 0.22, 0.2), "z", 1),
            Part(FRUSTUM, (0, 0, 0.93), (0.33, 0.0, 0.17)),
        ),
    ),
    Kind(
        "dumbbell",
        (_ball(0.26, 0.26, 0, -0.42), _ball(0.26, 0.26, 0, 0.42), Part(CAPSULE, (0, 0, 0.26), (0.1, 0.1, 0.4), "x", 1)),
    ),
    Kind(
        "snowman",
        (
            _ball(0.32, 0.34),
            _ball(0.74, 0.22),
            Part(FRUSTUM, (0, 0, 0.92), (0.26, 0.26, 0.02), "z", 1),
            Part(FRUSTUM, (0, 0, 1.03), (0.16, 0.14, 0.1), "z", 1),
        ),
    ),
    Kind(
        "robot",
        (
            Part(BOX, (0, 0, 0.48), (0.24, 0.17, 0.22)),
            Part(BOX, (0, 0, 0.86), (0.15, 0.14, 0.13), "z", 1),
            *(Part(CAPSULE, (x, 0, 0.48), (0.07, 0.07, 0.14), "z", 1) for x in (-0.33, 0.33)),
            *(Part(FRUSTUM, (x, 0, 0.13), (0.09, 0.07, 0.13), "z", 1) for x in (-0.12, 0.12)),
        ),
    ),
    Kind("table", (Part(BOX, (0, 0, 0.64), (0.55, 0.4, 0.04)), *_legs(0.46, 0.32, 0.3, 0.05))),
    Kind(
        "pillar",
        (
            Part(FRUSTUM, (0, 0, 0.5), (0.16, 0.14, 0.42)),
            Part(BOX, (0, 0, 0.05), (0.24, 0.24, 0.05), "z", 1),
            Part(BOX, (0, 0, 0.95), (0.22, 0.22, 0.05), "z", 1),
        ),
    ),
    Kind("pot", (Part(FRUSTUM, (0, 0, 0.42), (0.3, 0.42, 0.42)), Part(TORUS, (0, 0, 0.84), (0.4, 0.06, 0.4)))),
    Kind("picture", (Part(BOX, (0, 0, 0.5), (0.65, 0.03, 0.5)), Part(BOX, (0, 0, 0.5), (0.57, 0.04, 0.42), "z", 1))),
    Kind("rug", (Part(BOX, (0, 0, 0.008), (0.5, 0.5, 0.008)),), True),
)
KINDS = TRAIN_KINDS + HELD_OUT_KINDS
MAX_PARTS = max(len(kind.parts) for kind in KINDS)
PAINTS = 2


def kind_number(word: str) -> int:
    """Index into KINDS of the first kind called `word`."""
    return [kind.word for kind in KINDS].index(word)


@dataclass(frozen=True)
class Pieces:
    """B scenes of P placed shapes; `shape` -1 marks an empty place."""

    shape: Tensor  # (B, P) number in SHAPES
    position: Tensor  # (B, P, 3) metres
    rotation: Tensor  # (B, P, 3, 3) own frame to world
    size: Tensor  # (B, P, 3)
    owner: Tensor  # (B, P) 0 background, 1.. objects
    material: Tensor  # (B, P) number of the scene's material

    def joined(self, other: "Pieces") -> "Pieces":
        """The pieces of both, those of `self` first."""
        return Pieces(*(torch.cat([a, b], dim=1) for a, b in zip(self.fields(), other.fields(), strict=True)))

    def fields(self) -> list[Tensor]:
        """The tensors in order."""
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def trimmed(self) -> "Pieces":
        """Without the places at the end that no scene uses."""
        used = int((self.shape >= 0).any(0).nonzero().max()) + 1
        return Pieces(*(tensor[:, :used] for tensor in self.fields()))

    def compacted(self) -> "Pieces":
        """The same pieces with the empty places last, trimmed."""
        order = (self.shape < 0).long().argsort(dim=1, stable=True)
        scene = torch.arange(len(order), device=order.device)[:, None]
        return Pieces(*(tensor[scene, order] for tensor in self.fields())).trimmed()


_TURNS = {  # columns: where x, y, z of the part point in the object
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "x": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    "y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}


@cache
def _tables() -> dict[str, Tensor]:
    """All kinds as tensors (kinds, MAX_PARTS, ...)."""
    count = len(KINDS)
    tables = {
        "shape": torch.full((count, MAX_PARTS), -1),
        "centre": torch.zeros(count, MAX_PARTS, 3),
        "size": torch.ones(count, MAX_PARTS, 3),
        "turn": torch.eye(3).expand(count, MAX_PARTS, 3, 3).clone(),
        "paint": torch.zeros(count, MAX_PARTS, dtype=torch.long),
        "stretchable": torch.tensor([kind.stretchable for kind in KINDS]),
    }
    for i, kind in enumerate(KINDS):
        for j, part in enumerate(kind.parts):
            tables["shape"][i, j], tables["paint"][i, j] = part.shape, part.paint
            tables["centre"][i, j], tables["size"][i, j] = torch.tensor(part.centre), torch.tensor(part.size)
            tables["turn"][i, j] = torch.tensor(_TURNS[part.axis], dtype=torch.float32)
    return tables


def assemble(
    kind: Tensor, scale: Tensor, stretch: Tensor, position: Tensor, rotation: Tensor, first_material: int
) -> Pieces:
    """The pieces (B, K * MAX_PARTS) of objects on the CPU: `kind` (B, K) in KINDS or -1 for none, `scale` (B, K) in
    metres, `stretch` (B, K, 3) along the object's axes (only stretchable kinds; round parts take x for y), `position`
    (B, K, 3) of the foot, `rotation` (B, K, 3, 3).

    Object k is owner k + 1 and has the materials `first_material + PAINTS * k` and the next.
    """
    tables = _tables()
    count = kind.shape[1]
    row = kind.clamp_min(0)
    shape = torch.where(kind[..., None] >= 0, tables["shape"][row], -1)
    stretch = torch.where(tables["stretchable"][row][..., None], stretch, torch.ones_like(stretch))[:, :, None]
    round_stretch = stretch[..., [0, 0, 2]]
    factor = scale[..., None, None] * torch.where((shape == BOX)[..., None], stretch, round_stretch)
    centre = tables["centre"][row] * scale[..., None, None] * stretch
    number = torch.arange(count)[None, :, None]
    return Pieces(
        shape=shape.flatten(1),
        position=(position[:, :, None] + torch.einsum("bkij,bkpj->bkpi", rotation, centre)).flatten(1, 2),
        rotation=(rotation[:, :, None] @ tables["turn"][row]).flatten(1, 2),
        size=(tables["size"][row] * factor).flatten(1, 2),
        owner=torch.broadcast_to(number + 1, shape.shape).flatten(1),
        material=(first_material + PAINTS * number + tables["paint"][row]).flatten(1),
    )


def yaw(angle: Tensor) -> Tensor:
    """(..., 3, 3) rotation about z by `angle` radians."""
    c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [c, -s, zero, s, c, zero, zero, zero, zero + 1]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def tilt(angle: Tensor, about: Tensor) -> Tensor:
    """(..., 3, 3) rotation by `angle` (...) radians about the level axis at azimuth `about` (...) radians."""
    roll = yaw(angle)[..., [2, 0, 1], :][..., :, [2, 0, 1]]  # the same turn about x
    return yaw(about) @ roll @ yaw(-about)
