"""Short captioned RGB-D clips for the motion adapter: random still scenes with moving cameras and rigid objects.

A clip runs over u in [-1/2, 1/2]; at u = 0 everything is where `synth.stills` put it.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.synth.captions import describe, see
from dpdy_core.synth.dataset import REFINED
from dpdy_core.synth.objects import Pieces, yaw
from dpdy_core.synth.shading import Images, draw
from dpdy_core.synth.stills import MAX_OBJECTS, Dice, Split, Stills, draw_stills

CAMERA_WEIGHTS = (0.2, 0.3, 0.25, 0.25)  # static, orbit, dolly, pan
MOVING_CLIPS, MOVING_OBJECTS = 0.6, 0.6  # share of the clips in which objects move, and of the objects in these
CAMERA_GAP, OBJECT_GAP = 0.2, 0.5  # metres that stay between camera or object and the walls
LOWEST = 0.15  # camera above the floor, metres


@dataclass(frozen=True)
class RgbdClips:
    """B clips of F square frames of S pixels."""

    rgb: Tensor  # (B, F, 3, S, S) in [0, 1]
    depth: Tensor  # (B, F, 1, S, S) planar z > 0, metres
    captions: list[str]


def sample_clips(
    count: int, frames: int, size: int, generator: torch.Generator, device: torch.device | str, split: Split
) -> RgbdClips:
    """`count` new scenes of `split`, each seen over `frames` frames of `size` x `size` pixels.

    The camera stands still, goes round the objects, comes nearer or leaves, or turns; in a part of the clips objects
    slide, turn and hop. Captions describe the frame in the middle. Scenes are drawn on the CPU from `generator` (of
    any device) and rendered on `device`.
    """
    dice = Dice(generator)
    stills = draw_stills(count, size, generator, split)
    u = torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)
    pivot = pivot_of(stills)
    cameras = film(dice, stills, pivot, u)
    pieces = move(dice, stills, pivot, u)
    index = torch.arange(count).repeat_interleave(frames).tolist()
    world = dataclasses.replace(stills.world[index], pieces=pieces).to(device)
    images = draw(world, cameras.to(device), REFINED)
    middle = slice(frames // 2, None, frames)
    shown = Images(images.rgb[middle], images.depth[middle], images.place[middle])
    captions = describe(stills, see(stills, shown), dice)
    return RgbdClips(images.rgb.unflatten(0, (count, frames)), images.depth.unflatten(0, (count, frames)), captions)


def pivot_of(stills: Stills) -> Tensor:
    """(B, 3) point on the optical axis as far away as the objects' middle."""
    pieces, cameras = stills.world.pieces, stills.cameras
    weight = ((pieces.owner > 0) & (pieces.shape >= 0)).float()[..., None]
    middle = (pieces.position * weight).sum(1) / weight.sum(1).clamp_min(1)
    forward = -cameras.camera_to_world[:, :, 2]
    along = ((middle - cameras.centres) * forward).sum(1, keepdim=True).clamp_min(0.5)
    return cameras.centres + along * forward


def film(dice: Dice, stills: Stills, pivot: Tensor, u: Tensor) -> Cameras:
    """(B * F) cameras of all frames."""
    batch, still = len(pivot), stills.cameras
    kind = dice.pick(CAMERA_WEIGHTS, batch)
    sign = torch.where(dice.uniform(0, 1, batch) < 0.5, -1.0, 1.0)
    reach = sign * dice.uniform(0.3, 1.0, batch)
    orbit = torch.where(kind == 1, reach * math.radians(35), 0.0)[:, None] * u
    dolly = torch.where(kind == 2, reach * 0.4, 0.0)[:, None] * u
    pan = torch.where(kind == 3, reach * math.radians(14), 0.0)[:, None] * u
    arm = (still.centres - pivot)[:, None] * (1 + dolly)[..., None]
    round_pivot = yaw(orbit)
    centre = pivot[:, None] + torch.einsum("bfij,bfj->bfi", round_pivot, arm)
    centre = _inside(centre, still.centres[:, None], stills, CAMERA_GAP)
    centre[..., 2] = torch.maximum(centre[..., 2], still.centres[:, None, 2].clamp_max(LOWEST))
    turned = yaw(pan) @ round_pivot @ still.camera_to_world[:, None, :, :3]
    index = torch.arange(batch).repeat_interleave(len(u))
    pose = torch.cat([turned, centre[..., None]], dim=-1).flatten(0, 1)
    return dataclasses.replace(still[index], camera_to_world=pose)


def move(dice: Dice, stills: Stills, pivot: Tensor, u: Tensor) -> Pieces:
    """The pieces (B * F, P) of all frames: each moving object slides, and some turn or hop."""
    batch, frames = len(pivot), len(u)
    shape = (batch, MAX_OBJECTS)
    clip_moves = dice.uniform(0, 1, batch, 1) < MOVING_CLIPS
    moves = clip_moves & (dice.uniform(0, 1, *shape) < MOVING_OBJECTS)
    slides, turns, hops = (dice.uniform(0, 1, *shape) < share for share in (0.7, 0.5, 0.3))
    distance = (stills.cameras.centres - pivot).norm(dim=-1)[:, None]
    azimuth = dice.uniform(0, 2 * math.pi, *shape)
    path = moves * slides * distance * dice.uniform(0.1, 0.35, *shape)
    sweep = moves * turns * dice.uniform(-1.6, 1.6, *shape)
    height = moves * hops * distance * dice.uniform(0.05, 0.15, *shape)
    waves = dice.uniform(1.0, 3.0, *shape)
    jump = height[..., None] * (math.pi * waves[..., None] * u).sin().abs()
    level = torch.stack([azimuth.cos(), azimuth.sin()], dim=-1) * path[..., None]

    pieces = stills.world.pieces
    owned = torch.nn.functional.one_hot(pieces.owner, MAX_OBJECTS + 1)[..., 1:] * (pieces.shape >= 0)[..., None]
    share = owned / owned.sum(1, keepdim=True).clamp_min(1)
    foot = torch.einsum("bpk,bpi->bki", share, pieces.position)[:, None]  # (B, 1, K, 3)
    shift = torch.cat([level[:, None] * u[:, None, None], jump.transpose(1, 2)[..., None]], dim=-1)  # (B, F, K, 3)
    goal = _inside((foot + shift).flatten(1, 2), foot.expand_as(shift).flatten(1, 2), stills, OBJECT_GAP)
    shift = goal.view_as(shift) - foot
    turn = yaw(sweep[:, None] * u[:, None])  # (B, F, K, 3, 3)

    # the background, owner 0, neither turns nor moves
    owner = pieces.owner[:, None].expand(batch, frames, -1)
    still = torch.zeros(batch, frames, 1, 3)
    shift, foot = torch.cat([still, shift], dim=2), torch.cat([still, foot.expand(-1, frames, -1, -1)], dim=2)
    turn = torch.cat([torch.eye(3).expand(batch, frames, 1, 3, 3), turn], dim=2)
    row, frame = torch.arange(batch)[:, None, None], torch.arange(frames)[None, :, None]
    turn, foot, shift = turn[row, frame, owner], foot[row, frame, owner], shift[row, frame, owner]
    position = foot + shift + torch.einsum("bfpij,bfpj->bfpi", turn, pieces.position[:, None] - foot)
    index = torch.arange(batch).repeat_interleave(frames)
    every = Pieces(*(tensor[index] for tensor in pieces.fields()))
    rotation = turn @ pieces.rotation[:, None]
    return dataclasses.replace(every, position=position.flatten(0, 1), rotation=rotation.flatten(0, 1))


def _inside(point: Tensor, rest: Tensor, stills: Stills, gap: float) -> Tensor:
    """`point` (B, N, 3) kept `gap` metres off the walls of its room, or no nearer to them than `rest` (B, N or 1, 3).

    Only the walls: height isn't touched, nor is anything outdoors. The room is the first piece of its scene.
    """
    pieces = stills.world.pieces
    turn, middle, half = pieces.rotation[:, 0], pieces.position[:, :1], pieces.size[:, None, 0]
    own, own_rest = (torch.einsum("bji,bnj->bni", turn, p - middle) for p in (point, rest))
    limit = torch.maximum(half - gap, own_rest.abs())
    limit = torch.cat([limit[..., :2], torch.full_like(limit[..., 2:], torch.inf)], dim=-1)
    kept = middle + torch.einsum("bij,bnj->bni", turn, torch.maximum(torch.minimum(own, limit), -limit))
    return torch.where(stills.indoors[:, None, None], kept, point)
