"""B posed scenes: pieces, materials and light. World space is metres, z up, the floor at z = 0."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from dpdy_core.synth.objects import Pieces
from dpdy_core.synth.shapes import ROOM

Node = TypeVar("Node", "World", Pieces, "Materials", "Light")

FAR = 60.0  # planar depth of the sky, metres


@dataclass(frozen=True)
class Materials:
    """Q materials of each scene. A room uses four in a row: floor, ceiling, walls along x, walls along y."""

    texture: Tensor  # (B, Q) number in TEXTURE_NAMES
    colours: Tensor  # (B, Q, 2, 3) the pattern's two colours, sRGB
    scale: Tensor  # (B, Q) metres of one cell of the pattern
    offset: Tensor  # (B, Q, 2) shift of the pattern, cells
    grain: Tensor  # (B, Q) strength of fine noise on top, 0..1
    gloss: Tensor  # (B, Q) strength of the highlight


@dataclass(frozen=True)
class Light:
    """One sun with an extent, ambient light, and the sky that is seen where nothing is hit. Linear RGB."""

    direction: Tensor  # (B, 3) unit, towards the sun
    colour: Tensor  # (B, 3)
    extent: Tensor  # (B,) radius of the sun's disc as a tangent: width of the shadows' borders
    above: Tensor  # (B, 3) ambient light on what looks up
    below: Tensor  # (B, 3) and down
    sky: Tensor  # (B, 2, 3) colour at the horizon and overhead


@dataclass(frozen=True)
class World:
    """B scenes."""

    pieces: Pieces
    materials: Materials
    light: Light

    def __len__(self) -> int:
        return self.pieces.shape.shape[0]

    def __getitem__(self, index: slice | list[int]) -> "World":
        return _apply(self, lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> "World":
        return _apply(self, lambda tensor: tensor.to(device))

    @property
    def in_room(self) -> Tensor:
        """(B,) whether the scene is indoors."""
        return (self.pieces.shape == ROOM).any(1)


def _apply(node: Node, function: Callable[[Tensor], Tensor]) -> Node:
    """`node` with `function` applied to all tensors of its nested dataclasses."""
    values = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    changed: dict[str, Any] = {
        name: function(value) if isinstance(value, Tensor) else _apply(value, function)
        for name, value in values.items()
    }
    return dataclasses.replace(node, **changed)
