"""Pinhole cameras, in the one convention of the project.

Camera space is OpenGL's: x right, y up, the camera looks along -z. `camera_to_world` is (N, 3, 4) = [R | centre].
Pixel (column i, row j) has its centre at (i + 0.5, j + 0.5); y of the image points down.
A ray is `origin + z * direction` with `direction` scaled so that **z is planar depth** (distance along the optical
axis), the same number that depth maps hold; directions are therefore not of unit length.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras of one image size. Readers undistort and convert to this at the door."""

    camera_to_world: Tensor  # (N, 3, 4)
    focal: Tensor  # (N, 2) fx, fy in pixels
    principal: Tensor  # (N, 2) cx, cy in pixels
    width: int
    height: int

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def __getitem__(self, index: Tensor | slice | int | list[int]) -> "Cameras":
        if isinstance(index, int):
            index = [index]
        return replace(
            self,
            camera_to_world=self.camera_to_world[index],
            focal=self.focal[index],
            principal=self.principal[index],
        )

    def to(self, device: torch.device | str) -> "Cameras":
        return replace(
            self,
            camera_to_world=self.camera_to_world.to(device),
            focal=self.focal.to(device),
            principal=self.principal.to(device),
        )

    @property
    def centres(self) -> Tensor:
        """(N, 3) camera centres in world space."""
        return self.camera_to_world[:, :, 3]

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras for images scaled to `width` x `height`."""
        across, down = width / self.width, height / self.height
        focal, principal = (
            torch.stack([pair[:, 0] * across, pair[:, 1] * down], dim=-1) for pair in (self.focal, self.principal)
        )
        return replace(self, focal=focal, principal=principal, width=width, height=height)

    def rays(self, camera: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and directions (R, 3) of rays through `pixels` (R, 2), x and y in pixels, of cameras `camera` (R,).

        Directions advance planar depth by one: `origin + z * direction` has depth z.
        """
        xy = (pixels - self.principal[camera]) / self.focal[camera]
        local = torch.stack([xy[:, 0], -xy[:, 1], -torch.ones_like(xy[:, 0])], dim=-1)
        c2w = self.camera_to_world[camera]
        return c2w[:, :, 3], torch.einsum("rij,rj->ri", c2w[:, :, :3], local)

    def image_rays(self, index: int) -> tuple[Tensor, Tensor]:
        """Origins and directions (H, W, 3) of all pixel centres of camera `index`."""
        pixels = pixel_centres(self.width, self.height, self.focal.device, self.focal.dtype).reshape(-1, 2)
        camera = torch.full((len(pixels),), index, dtype=torch.long, device=self.focal.device)
        origins, directions = self.rays(camera, pixels)
        return origins.reshape(self.height, self.width, 3), directions.reshape(self.height, self.width, 3)

    def project_all(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (N, P, 2) and planar depth (N, P) of world `points` (P, 3) seen by every camera; see `project`."""
        turn = self.camera_to_world[:, :, :3]
        local = torch.einsum("nji,pj->npi", turn, points) - torch.einsum("nji,nj->ni", turn, self.centres)[:, None]
        return self._on_image(local, self.focal[:, None], self.principal[:, None])

    def project(self, points: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (P, 2) and planar depth (P,) of world `points` (P, 3) seen by cameras `camera` (P,).

        Points behind the camera have a depth <= 0 and meaningless pixels.
        """
        c2w = self.camera_to_world[camera]
        local = torch.einsum("pji,pj->pi", c2w[:, :, :3], points - c2w[:, :, 3])
        return self._on_image(local, self.focal[camera], self.principal[camera])

    def in_view(self, pixels: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Which projected points fall into the image, (...) bool, and the index row * width + column of their pixels.

        `pixels` (..., 2) and planar `depth` (...) are those of `project`. Outside, the index is some pixel's.
        """
        column, row = pixels.nan_to_num(-1).clamp(-1, 1e6).floor().long().unbind(-1)
        inside = (depth > 0) & (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        return inside, row.clamp(0, self.height - 1) * self.width + column.clamp(0, self.width - 1)

    @staticmethod
    def _on_image(local: Tensor, focal: Tensor, principal: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., 2) and planar depth (...) of points (..., 3) in camera space."""
        depth = -local[..., 2]
        safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
        xy = torch.stack([local[..., 0], -local[..., 1]], dim=-1) / safe[..., None]
        return xy * focal + principal, depth


def pixel_centres(
    width: int, height: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """(H, W, 2) x and y of the pixel centres."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype) + 0.5,
        torch.arange(width, device=device, dtype=dtype) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def look_at(centre: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """(..., 3, 4) camera_to_world at `centre` looking at `target` (..., 3), with `up` roughly up."""
    backward = torch.nn.functional.normalize(centre - target, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(up.expand_as(backward), backward), dim=-1)
    return torch.stack([right, torch.linalg.cross(backward, right), backward, centre], dim=-1)
