"""Clips that begin or end at the camera of the input video and leave it for where nobody filmed."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.novel_views import NovelViews

Anchor = Literal["start", "end", "both"]
ANCHORS: tuple[Anchor, ...] = ("start", "end", "both")  # in turn


@dataclass(frozen=True)
class ClipView:
    """F consecutive input times and a camera for each; the colour and depth are those of the input frames."""

    cameras: Cameras  # F square ones; those of `real` are the input cameras
    times: Tensor  # (F,)
    frames: Tensor  # (F,) int, the input frame of each time
    colour: Tensor  # (F, 3, S, S) in [0, 1], as the input cameras saw it
    depth: Tensor | None  # (F, 1, S, S) planar z, 0 = none
    real: list[int]  # the frames of the clip at which the input's camera still holds


class ClipViews:
    """Draws clips of square views, `size` pixels wide, from a training clip that lies on the device."""

    def __init__(self, clip: Clip, novel: NovelViews | AimedViews, size: int, frames: int, real: int) -> None:
        """`real` input frames stand at each anchored end of a clip of at most `frames` frames."""
        self.clip, self.novel, self.size = clip, novel, size
        self.frames = min(frames, len(clip))
        shares = {anchor: departure(self.frames, real, anchor) for anchor in ANCHORS}
        self.real = {anchor: [k for k, share in enumerate(s) if share == 0] for anchor, s in shares.items()}
        device = clip.times.device
        self.shares = {anchor: torch.tensor(s, device=device)[:, None] for anchor, s in shares.items()}
        self.order = torch.arange(self.frames, device=device)
        self.has_all_depth = clip.depth is not None and bool((clip.depth > 0).all())

    def draw(
        self, anchor: Anchor, progress: float, generator: torch.Generator, cameras: Cameras | None = None
    ) -> ClipView:
        """A clip from a random time on, to or from a novel camera of training `progress` in [0, 1].

        `cameras` stand in for those of the training clip, without a gradient.
        """
        device = self.order.device
        last = len(self.clip) - self.frames
        frames = torch.randint(last + 1, (1,), device=device, generator=generator) + self.order
        goal, _ = self.novel.draw(1, progress, generator)
        cameras = square(self.clip.cameras if cameras is None else cameras, self.size)[frames]
        pose = blend_poses(cameras.camera_to_world.detach(), goal.camera_to_world, self.shares[anchor])
        depth = None if self.clip.depth is None else square_depth(self.clip.depth[frames], self.size)
        return ClipView(
            cameras=replace(cameras, camera_to_world=pose),
            times=self.clip.times[frames],
            frames=frames,
            colour=square_images(self.clip.images[frames], self.size),
            depth=depth,
            real=self.real[anchor],
        )


def departure(frames: int, real: int, anchor: Anchor) -> list[float]:
    """How far each of `frames` cameras is on its way from the input's (0) to the novel one (1).

    0 for the `real` frames at the anchored end, then a smooth step that arrives at the other end; with both ends
    anchored a sine arc out and back. At least one frame is under way.
    """
    if anchor == "both":
        real = min(real, (frames - 1) // 2)
        way = frames - 2 * real + 1
        return [0.0] * real + [math.sin(math.pi * k / way) for k in range(1, way)] + [0.0] * real
    real = min(real, frames - 1)
    steps = [k / (frames - real) for k in range(1, frames - real + 1)]
    shares = [0.0] * real + [s * s * (3 - 2 * s) for s in steps]
    return shares if anchor == "start" else shares[::-1]


def blend_poses(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Poses (N, 3, 4) between `first` and `second` at `share` (N, 1) in [0, 1]; exactly `first` where it is 0.

    Centres move on a line; viewing and right-hand axes are blended and made orthonormal, which needs views that don't
    oppose each other.
    """
    blended = torch.lerp(first, second.expand_as(first), share[..., None])
    back = normalize(blended[..., 2], dim=-1)
    right = blended[..., 0]
    right = normalize(right - (right * back).sum(dim=-1, keepdim=True) * back, dim=-1)
    pose = torch.stack([right, torch.linalg.cross(back, right), back, blended[..., 3]], dim=-1)
    return torch.where(share[..., None] == 0, first, pose)


def _margins(width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the central square of an image, whole pixels."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def square(cameras: Cameras, size: int) -> Cameras:
    """The cameras of the central squares of the images, scaled to `size` pixels: those of `square_images`."""
    left, top, side = _margins(cameras.width, cameras.height)
    principal = torch.stack([cameras.principal[:, 0] - left, cameras.principal[:, 1] - top], dim=-1)
    return replace(cameras, principal=principal, width=side, height=side).resized(size, size)


def square_images(images: Tensor, size: int) -> Tensor:
    """(F, 3, `size`, `size`) in [0, 1]: the central squares of `images` (F, H, W, 3) uint8."""
    left, top, side = _margins(images.shape[2], images.shape[1])
    cut = images[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float() / 255
    return interpolate(cut, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def square_depth(depth: Tensor, size: int) -> Tensor:
    """(F, 1, `size`, `size`): the nearest pixels of the central squares of `depth` (F, H, W)."""
    left, top, side = _margins(depth.shape[2], depth.shape[1])
    cut = depth[:, None, top : top + side, left : left + side]
    return interpolate(cut, size=(size, size), mode="nearest-exact")
