"""Batched ray tracing of worlds: which piece a ray meets, and where.

Work is done on pairs of a ray and a piece whose bounding ball the ray meets, sorted by kind of shape, so that each
pair costs one intersection. Vectors are component first: (3, ...). Rays of a batch are numbered `scene * R + ray`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.synth.shapes import GROUND, ROOM, SHAPES
from dpdy_core.synth.world import World

MARGIN = 1.02  # of the squared radius of bounding balls, for rounding


@dataclass(frozen=True)
class Hits:
    """What N = B * R rays met."""

    depth: Tensor  # (N,) parameter along the ray, infinity where nothing was met
    piece: Tensor  # (N,) number in the list of pieces, -1 nothing


class PieceList:
    """The pieces of all scenes of a world in one list of M, sorted by shape. Unused places P at the end are cut off."""

    def __init__(self, world: World) -> None:
        pieces = world.pieces.trimmed()
        shape = pieces.shape.flatten()
        self.places = pieces.shape.shape[1]
        order = shape.argsort(stable=True)
        self.place = order[(shape[order] >= 0).nonzero()[:, 0]]  # (M,) number in (B * P)
        self.shape = shape[self.place]
        self.scene = self.place // self.places
        self.material = pieces.material.flatten()[self.place] + self.scene * world.materials.scale.shape[1]
        self.position = pieces.position.flatten(0, 1)[self.place].T.contiguous()  # (3, M)
        self.rotation = pieces.rotation.flatten(0, 1).flatten(1)[self.place].T.contiguous()  # (9, M)
        self.size = pieces.size.flatten(0, 1)[self.place].T.contiguous()  # (3, M)
        reach = torch.empty_like(self.size[0])
        for kind, index in each(self.shape, len(SHAPES)):
            reach[index] = SHAPES[kind].reach(self.size[:, index])
        # squared radii of bounding balls (B, P); -inf, which no ray meets, marks an empty place
        self.centre = pieces.position
        self.square = torch.full_like(shape, -torch.inf, dtype=reach.dtype).index_copy_(
            0, self.place, reach * reach * MARGIN
        )
        self.square = self.square.view_as(pieces.shape)
        background = (pieces.shape == ROOM) | (pieces.shape == GROUND)
        self.solid = torch.where(background, -torch.inf, self.square)  # the same without room and ground

    def to_own(self, piece: Tensor, vector: Tensor) -> Tensor:
        """World vectors (3, N) in the frames of `piece` (N,)."""
        r, (x, y, z) = self.rotation.index_select(1, piece), vector
        return torch.stack([r[i] * x + r[i + 3] * y + r[i + 6] * z for i in range(3)])

    def to_world(self, piece: Tensor, vector: Tensor) -> Tensor:
        """Vectors (3, N) of the frames of `piece` (N,) in the world's."""
        r, (x, y, z) = self.rotation.index_select(1, piece), vector
        return torch.stack([r[3 * i] * x + r[3 * i + 1] * y + r[3 * i + 2] * z for i in range(3)])

    def pairs(self, met: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """For each shape the pieces and rays of the pairs marked in `met` (B, P, R), and the shape's number."""
        piece, ray = met.flatten(0, 1)[self.place].nonzero(as_tuple=True)
        ray = ray + self.scene[piece] * met.shape[2]
        begin = 0
        for kind, count in enumerate(torch.bincount(self.shape[piece], minlength=len(SHAPES)).tolist()):
            if count:
                yield piece[begin : begin + count], ray[begin : begin + count], kind
            begin += count

    def distances(self, origin: Tensor, direction: Tensor, met: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pieces, rays and hit parameters of the pairs in `met` of rays `origin`, `direction` (3, N)."""
        for piece, ray, kind in self.pairs(met):
            local_origin = self.to_own(piece, origin.index_select(1, ray) - self.position.index_select(1, piece))
            local_direction = self.to_own(piece, direction.index_select(1, ray))
            size = self.size.index_select(1, piece)
            yield piece, ray, SHAPES[kind].hit(local_origin, local_direction, size)


def each(labels: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """Each label below `count` that occurs in `labels` (N,), with the indices where it does."""
    for label in range(count):
        index = (labels == label).nonzero()[:, 0]
        if len(index):
            yield label, index


def trace(pieces: PieceList, origin: Tensor, direction: Tensor) -> Hits:
    """The first hits of rays from one `origin` (B, 3) a scene in `direction` (B, 3, R)."""
    batch, _, rays = direction.shape
    centre = pieces.centre - origin[:, None]
    along = centre @ (direction * (direction**2).sum(1, keepdim=True).rsqrt())
    # a ray from outside of a ball meets it if it runs at least as far along towards its middle as a tangent does;
    # from inside (no tangent: NaN) always
    tangent = ((centre**2).sum(-1) - pieces.square).sqrt()
    met = ~(along < tangent[..., None])

    origins = origin.T[:, :, None].expand(3, batch, rays).reshape(3, -1)
    directions = direction.transpose(0, 1).reshape(3, -1)
    depth = torch.full_like(origins[0], torch.inf)
    found = list(pieces.distances(origins, directions, met))
    for _, ray, t in found:
        depth.scatter_reduce_(0, ray, t, "amin")
    nearest = torch.full_like(depth, -1, dtype=torch.long)
    for piece, ray, t in found:
        won = (t == depth.index_select(0, ray)) & (t < torch.inf)
        nearest.scatter_reduce_(0, ray, torch.where(won, piece, -1), "amax")
    return Hits(depth, nearest)


def squares(pieces: PieceList, point: Tensor) -> Tensor:
    """(B, P, R) squared distances of `point` (B, 3, R) to the middles of all pieces."""
    norm = (point**2).sum(1)[:, None] + (pieces.centre**2).sum(-1)[..., None]
    return torch.baddbmm(norm, pieces.centre, point, alpha=-2)


def shadowed(pieces: PieceList, point: Tensor, sun: Tensor, square: Tensor, wanted: Tensor) -> Tensor:
    """(B, R) whether a solid piece lies between `point` and the unit direction `sun`, both (B, 3, R), where `wanted`
    (B, R). `square` is that of `squares`."""
    along = (pieces.centre @ sun).sub_((sun * point).sum(1)[:, None])
    tangent = (square - pieces.solid[..., None]).sqrt_()
    met = (along < tangent).logical_not_()  # as in `trace`
    met &= wanted[:, None]
    points, directions = (v.transpose(0, 1).reshape(3, -1) for v in (point, sun))
    dark = torch.zeros_like(points[0])
    for _, ray, t in pieces.distances(points, directions, met):
        dark.scatter_reduce_(0, ray, (t < torch.inf).to(dark.dtype), "amax")
    return (dark > 0).view_as(wanted)


def openness(pieces: PieceList, point: Tensor, normal: Tensor, square: Tensor) -> Tensor:
    """(B, R) share of ambient light that reaches `point` (B, 3, R): balls of about the size of the solid pieces take
    r^2 cos / d^2 of the hemisphere each, in a product that cannot get negative."""
    toward = (pieces.centre @ normal).sub_((normal * point).sum(1)[:, None]).clamp_min_(0)
    ball = 0.4 * pieces.solid.clamp_min(0)
    inverse = torch.maximum(square, ball[..., None] + 1e-6).rsqrt_()
    toward.mul_(inverse).mul_(inverse.square_())
    return torch.exp(-1.2 * ball[:, None] @ toward)[:, 0]
