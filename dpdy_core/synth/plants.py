"""Plants that sway: chains of capsules whose joints bend with the wind, the only non-rigid objects."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.synth.objects import Pieces, tilt
from dpdy_core.synth.shapes import CAPSULE, ELLIPSOID

LINKS = 5


@dataclass(frozen=True)
class Stalk:
    """One chain from its root up, with a flower at its end. It leans towards azimuth `lean_to` and sways about that."""

    root: tuple[float, float, float]
    length: float  # metres
    lean: float  # radians over the whole length
    lean_to: float
    sway: float  # radians over the whole length
    waves: float  # over the clip
    phase: float

    def pieces(self, times: Tensor, owner: int, material: int) -> Pieces:
        """LINKS capsules and an ellipsoid for each time of `times` (T,)."""
        frames, step = len(times), self.length / LINKS
        joint = torch.tensor(self.root).expand(frames, 3)
        positions, rotations, sizes = [], [], []
        for i in range(LINKS):
            # the bend travels up the stalk and grows towards its end
            wave = (2 * math.pi * self.waves * times + self.phase - 0.35 * i).sin()
            lean = (self.lean + self.sway * wave) * (i + 1) ** 1.3 / LINKS**1.3
            # leaning towards an azimuth is a turn about the level axis a quarter turn further
            turn = tilt(lean, torch.full_like(lean, self.lean_to + math.pi / 2))
            rotations.append(turn)
            positions.append(joint + turn[..., 2] * (step / 2))
            joint = joint + turn[..., 2] * step
            radius = 0.045 - 0.005 * i
            sizes.append([radius, radius, step / 2])
        positions.append(joint)
        rotations.append(rotations[-1])
        sizes.append([0.11, 0.11, 0.05])
        count = LINKS + 1
        return Pieces(
            shape=torch.tensor([CAPSULE] * LINKS + [ELLIPSOID]).expand(frames, count),
            position=torch.stack(positions, 1),
            rotation=torch.stack(rotations, 1),
            size=torch.tensor(sizes).expand(frames, count, 3),
            owner=torch.full((frames, count), owner),
            material=torch.tensor([material] * LINKS + [material + 1]).expand(frames, count),
        )
