"""Which surfaces the training frames saw."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate as resize

from dpdy_core.ingest.clip import Clip
from dpdy_core.ingest.size import fitted_size
from dpdy_core.render.renderer import render_camera
from dpdy_core.scene.scene import Scene

DEPTH_TOLERANCE = 0.05  # relative to the depth that the frame saw there
FRAMES_AT_ONCE = 16
FEW_HOLES = 0.01  # share of pixels without depth that is not worth rendering the scene for
RENDER_SIZE = 128  # longer side of depth maps rendered for clips that have none, pixels


class TrainingViews:
    """The training frames as witnesses.

    Each has a depth map: the clip's own where it has one, the scene's elsewhere; or `depth` (T, H, W), if given.
    """

    def __init__(self, clip: Clip, scene: Scene, depth: Tensor | None = None) -> None:
        device = next(scene.parameters()).device
        self.times = clip.times.to(device)
        self.spacing = float((clip.times[1:] - clip.times[:-1]).median()) if len(clip) > 1 else 1.0
        depth = complete_depth(clip, scene) if depth is None else depth
        self.is_rendered = depth is not clip.depth  # it then depends on the scene as it is now
        self.depth = depth.to(device)
        self.cameras = clip.cameras.to(device).resized(self.depth.shape[2], self.depth.shape[1])
        self.moving = _resized(clip.motion, self.depth).to(device) if clip.motion is not None else None

    @torch.no_grad()
    def seen(self, origins: Tensor, directions: Tensor, depth: Tensor, dynamic: Tensor, time: float | Tensor) -> Tensor:
        """Whether some training frame saw the surface at planar `depth` (R,) along each ray: (R,) bool.

        What moves (`dynamic` share (R,) above one half) must have been seen at `time` itself, what stands still at
        any time, by a frame in which no mover hid it.
        """
        points = origins + depth[:, None] * directions
        seen = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        moves = dynamic > 0.5
        for start in range(0, len(self.times), FRAMES_AT_ONCE):
            frames = torch.arange(start, min(start + FRAMES_AT_ONCE, len(self.times)), device=points.device)
            visible, on_mover = self._visible(points, frames)
            same_time = ((self.times[frames] - time).abs() <= 0.75 * self.spacing)[:, None]
            seen |= torch.where(moves, visible & same_time, visible & ~on_mover).any(dim=0)
        return seen

    def _visible(self, points: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(F, R) whether each frame saw each point, and whether the pixel it fell on moves."""
        count, rays = len(frames), len(points)
        camera = frames.repeat_interleave(rays)
        pixels, z = self.cameras.project(points.repeat(count, 1), camera)
        inside, pixel = self.cameras.in_view(pixels, z)
        surface = self.depth.flatten(1)[camera, pixel]
        visible = inside & (surface > 0) & ((z - surface).abs() <= DEPTH_TOLERANCE * surface)
        moving = torch.zeros_like(visible) if self.moving is None else self.moving.flatten(1)[camera, pixel]
        return visible.view(count, rays), moving.view(count, rays)


def complete_depth(clip: Clip, scene: Scene) -> Tensor:
    """Depth maps (T, H, W) of the clip; if pixels lack it, small ones with the scene's own rendered in the gaps."""
    if clip.depth is not None and float((clip.depth == 0).float().mean()) < FEW_HOLES:
        return clip.depth
    size = fitted_size(clip.cameras.width, clip.cameras.height, RENDER_SIZE)
    cameras = clip.cameras.resized(*size)
    rendered = torch.stack(
        [render_camera(scene, cameras, k, float(t), chunk=16384).depth for k, t in enumerate(clip.times)]
    )
    if clip.depth is None:
        return rendered
    depth = resize(clip.depth.to(rendered)[:, None], size=size[::-1], mode="nearest")[:, 0]
    return torch.where(depth > 0, depth, rendered)


def _resized(masks: Tensor, like: Tensor) -> Tensor:
    if masks.shape == like.shape:
        return masks
    return resize(masks[:, None].float(), size=tuple(like.shape[1:]), mode="nearest")[:, 0] > 0.5
