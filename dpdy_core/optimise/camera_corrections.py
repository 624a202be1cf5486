"""Small corrections of the training cameras, optimised with the scene."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.checkpoint import FRAMES


class CameraCorrections(nn.Module):
    """Each camera turned about its own centre and moved: axis-angle and shift in world axes, zero at the start.

    Scene and cameras can turn, move and grow together without any ray noticing. So corrections count only after what
    all cameras share, to first order, is taken out of them (see `gauge_free`): cameras that are not corrected, those
    of the held-out views, stay in place as well as they can.
    """

    centres: Tensor

    def __init__(self, cameras: Cameras, unit: float) -> None:
        """`unit` is the length of a shift of one, in world units: the radius of the scene."""
        super().__init__()
        self.unit = unit
        self.register_buffer("centres", cameras.centres, persistent=False)
        self.twist = nn.Parameter(torch.zeros(len(cameras), 6).to(cameras.focal))

    def corrections(self) -> tuple[Tensor, Tensor]:
        """Axis-angle (T, 3) in radians and shift (T, 3) in units, free of what all cameras share."""
        return gauge_free(self.twist[:, :3], self.twist[:, 3:], self.centres)

    def correct(self, cameras: Cameras) -> Cameras:
        """The T cameras corrected, differentiable."""
        turn, shift = self.corrections()
        pose = cameras.camera_to_world
        centres = pose[:, :, 3] + self.unit * shift
        return replace(
            cameras, camera_to_world=torch.cat([rotation(turn) @ pose[:, :, :3], centres[..., None]], dim=-1)
        )

    def penalty(self) -> Tensor:
        """Mean squared size of the corrections."""
        turn, shift = self.corrections()
        return turn.square().sum(dim=-1).mean() + shift.square().sum(dim=-1).mean()

    @torch.no_grad()
    def numbers(self) -> dict[str, Tensor]:
        """Mean angle in degrees and mean shift in world units."""
        turn, shift = self.corrections()
        return {
            "camera_degrees": torch.rad2deg(turn.norm(dim=-1)).mean(),
            "camera_shift": self.unit * shift.norm(dim=-1).mean(),
        }


def load_corrections(folder: Path, clip: Clip) -> CameraCorrections | None:
    """The corrections of the training `clip` in the newest checkpoint in `folder`, or None if it refined no camera."""
    checkpoint = newest_checkpoint(folder)
    twist = None if checkpoint is None else checkpoint.tensors.get(f"{FRAMES}cameras.twist")
    if checkpoint is None or twist is None:
        return None
    corrections = CameraCorrections(clip.cameras, checkpoint.header["bounds"]["radius"])
    corrections.twist.data = twist.to(corrections.centres)
    return corrections.requires_grad_(False)


def refined(clip: Clip, folder: Path) -> Clip:
    """The training `clip` with its cameras as the scene in `folder` corrected them, if it did."""
    corrections = load_corrections(folder, clip)
    return clip if corrections is None else replace(clip, cameras=corrections.correct(clip.cameras))


def gauge_free(turn: Tensor, shift: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Turns and shifts (T, 3) without common turn, common shift and growth of the path of camera `centres` (T, 3)."""
    turn = turn - turn.mean(dim=0)
    shift = shift - shift.mean(dim=0)
    outward = centres - centres.mean(dim=0)
    growth = (shift * outward).sum() / outward.square().sum().clamp_min(1e-12)
    return turn, shift - growth * outward


def rotation(turn: Tensor) -> Tensor:
    """Rotation matrices (T, 3, 3) of axis-angle vectors (T, 3) by Rodrigues' formula, smooth at zero."""
    angle = (turn.square().sum(dim=-1) + 1e-16).sqrt()[:, None, None]
    x, y, z = turn.unbind(-1)
    nought = torch.zeros_like(x)
    cross = torch.stack([nought, -z, y, z, nought, -x, -y, x, nought], dim=-1).view(-1, 3, 3)
    first = torch.sinc(angle / torch.pi)
    second = 0.5 * torch.sinc(angle / (2 * torch.pi)).square()
    return torch.eye(3, dtype=turn.dtype, device=turn.device) + first * cross + second * cross @ cross
