"""Procedural scenes on the training device, made once and renewed while training goes on."""

import torch
from torch import Tensor

from dpdy_core.prior.rgbd import relative_inverse_depth
from dpdy_core.synth.dataset import sample_batch


class SceneBuffer:
    """Up to `capacity` packed scenes (8-bit colour, half-precision depth) with captions; the oldest are replaced."""

    def __init__(self, capacity: int, size: int, chunk: int, device: torch.device, seed: int) -> None:
        """`chunk` scenes are made at once."""
        self.capacity, self.size, self.chunk, self.device = max(capacity, chunk), size, chunk, device
        self.rgb = torch.empty((self.capacity, 3, size, size), dtype=torch.uint8, device=device)
        self.depth = torch.empty((self.capacity, 1, size, size), dtype=torch.float16, device=device)
        self.captions: list[str] = [""] * self.capacity
        self.count = self.made = 0
        self._generator = torch.Generator().manual_seed(seed)  # scenes are drawn on the CPU

    def renew(self) -> Tensor:
        """Make `chunk` new scenes in the place of the oldest; returns their indices, on the CPU."""
        scenes = sample_batch(self.chunk, self.size, self._generator, self.device, "train")
        index = torch.arange(self.made, self.made + self.chunk) % self.capacity
        place = index.to(self.device)
        self.rgb[place] = (scenes.rgb * 255).round().to(torch.uint8)
        self.depth[place] = relative_inverse_depth(scenes.depth).half()
        for i, caption in zip(index.tolist(), scenes.captions, strict=True):
            self.captions[i] = caption
        self.made += self.chunk
        self.count = min(self.made, self.capacity)
        return index

    def packed(self, index: Tensor) -> Tensor:
        """(B, 4, S, S) in [-1, 1] of the scenes at `index` (B,)."""
        return torch.cat([self.rgb[index].float() / 127.5 - 1, self.depth[index].float()], dim=1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random indices (count,) on the device."""
        return torch.randint(self.count, (count,), generator=generator, device=self.device)
