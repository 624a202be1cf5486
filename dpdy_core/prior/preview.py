"""Pictures of what the bundled prior has learnt."""

from pathlib import Path

import torch
from torch import Tensor

from dpdy_core.prior import pictures
from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.rgbd import unpack
from dpdy_core.rundir import write_json


@torch.no_grad()
def write_preview(model: Ldm3d, rgbd: Tensor, captions: list[str], folder: Path) -> None:
    """Pictures of samples for `captions`, and of scenes `rgbd` above their reconstructions, also with flat depth."""
    flat = torch.cat([rgbd[:, :3], torch.zeros_like(rgbd[:, 3:])], dim=1)
    shown = (rgbd, model.decode(model.encode(rgbd)), model.decode(model.encode(flat)))
    rows = torch.cat([pictures.tiles(*unpack(images), -2) for images in shown])
    pictures.write_picture(folder / "vae.png", pictures.grid(rows, len(rgbd)))
    rgb, depth = model.sample(captions, 40, 3.0, torch.Generator(model.device).manual_seed(0))
    pictures.write_picture(folder / "samples.png", pictures.grid(pictures.tiles(rgb, depth, -2), 10))
    write_json(folder / "captions.json", captions)


def write_motion(rgb: Tensor, depth: Tensor, folder: Path) -> None:
    """The frames of clips `rgb` (B, F, 3, S, S) and `depth` (B, F, 1, S, S), a row each, colour over depth."""
    tiles = pictures.tiles(rgb.flatten(0, 1), depth.flatten(0, 1), -2)
    pictures.write_picture(folder / "motion.png", pictures.grid(tiles, rgb.shape[1]))
