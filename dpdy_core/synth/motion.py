"""Rigid motions: functions of times (T,) in [0, 1] that give positions (T, 3) and rotations (T, 3, 3)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dpdy_core.synth.objects import tilt, yaw

Motion = Callable[[Tensor], tuple[Tensor, Tensor]]


def rest(x: float, y: float, z: float = 0.0, angle: float = 0.0) -> Motion:
    """Stands still, turned by `angle` radians."""

    def motion(times: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([x, y, z]).expand(len(times), 3), yaw(torch.full_like(times, angle))

    return motion


def drive(start: tuple[float, float], end: tuple[float, float], bow: float) -> Motion:
    """Drives on a parabola from `start` to `end` that bows out by `bow` metres to the left; looks ahead."""
    (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    length = math.hypot(dx, dy)
    left = (-dy / length, dx / length)

    def motion(times: Tensor) -> tuple[Tensor, Tensor]:
        out, turn = 4 * bow * times * (1 - times), 4 * bow * (1 - 2 * times)
        position = torch.stack(
            [x + dx * times + left[0] * out, y + dy * times + left[1] * out, torch.zeros_like(times)], 1
        )
        return position, yaw(torch.atan2(dy + left[1] * turn, dx + left[0] * turn))

    return motion


def circle(centre: tuple[float, float], radius: float, start: float, sweep: float) -> Motion:
    """Drives on a circle from azimuth `start` over `sweep` radians; looks ahead."""

    def motion(times: Tensor) -> tuple[Tensor, Tensor]:
        angle = start + sweep * times
        x, y = centre[0] + radius * angle.cos(), centre[1] + radius * angle.sin()
        return torch.stack([x, y, torch.zeros_like(times)], 1), yaw(angle + math.copysign(math.pi / 2, sweep))

    return motion


def spin(x: float, y: float, start: float, sweep: float, hop: float = 0.0, hops: float = 2.0) -> Motion:
    """Turns on the spot over `sweep` radians and jumps `hops` times, `hop` metres high."""

    def motion(times: Tensor) -> tuple[Tensor, Tensor]:
        height = hop * (math.pi * hops * times).sin().abs()
        return torch.stack([torch.full_like(times, x), torch.full_like(times, y), height], 1), yaw(
            start + sweep * times
        )

    return motion


def swing(x: float, y: float, angle: float, reach: float, waves: float, phase: float, foot: float) -> Motion:
    """Rocks to and fro by `reach` radians on the edge of its foot, `foot` metres from its middle."""

    def motion(times: Tensor) -> tuple[Tensor, Tensor]:
        lean = reach * (2 * math.pi * waves * times + phase).sin()
        turned = yaw(torch.full_like(times, angle))
        position = torch.tensor([x, y, 0.0]) + foot * lean.sin().abs()[:, None] * torch.tensor([0.0, 0.0, 1.0])
        return position, tilt(lean, torch.full_like(times, angle)) @ turned

    return motion
