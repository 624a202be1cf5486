"""How well a prior's VAE keeps real pictures: `python -m dpdy_core.prior.score --model DIR --images FOLDER`."""

import argparse
import json
import sys
from pathlib import Path

import cv2
import torch
from torch import Tensor

from dpdy_core.errors import BadInput, DpdyError
from dpdy_core.ingest.images import IMAGE_SUFFIXES, natural_key, read_rgb
from dpdy_core.prior.autoencoder import autoencoder_psnr
from dpdy_core.prior.ldm3d import BUNDLED, Ldm3d, load_ldm3d
from dpdy_core.runtime import resolve_device

BATCH = 32


def read_squares(folder: Path, size: int) -> Tensor:
    """(B, 3, S, S) in [0, 1]: the middle square of every image in `folder`, area-averaged to `size` pixels.

    Raises BadInput if there is none.
    """
    files = sorted(
        (f for f in folder.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: natural_key(f.name)
    )
    if not files:
        raise BadInput(f"{folder} holds no images", "give a folder of PNG or JPEG files")
    squares = []
    for file in files:
        image = read_rgb(file, upright=True)
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = image[top : top + side, left : left + side]
        squares.append(torch.from_numpy(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)))
    return torch.stack(squares).permute(0, 3, 1, 2).float() / 255


def with_ramp(rgb: Tensor) -> Tensor:
    """(B, 4, S, S) in [-1, 1]: `rgb` packed with relative inverse depth that rises from the top (far) to the bottom, as
    over a floor."""
    ramp = torch.linspace(-1, 1, rgb.shape[2], device=rgb.device)[:, None]
    return torch.cat([rgb * 2 - 1, ramp.expand(len(rgb), 1, -1, rgb.shape[3])], dim=1)


def score_images(model: Ldm3d, rgb: Tensor) -> dict[str, float]:
    """Mean PSNR of the colour of `rgb` (B, 3, S, S) in [0, 1] through the VAE, with a ramp of depth and with constant
    depth, dB."""
    scores = [(autoencoder_psnr(model.vae, with_ramp(some)), len(some)) for some in rgb.split(BATCH)]
    names = {"psnr_rgb_ramp": "psnr_rgb", "psnr_rgb_flat_depth": "psnr_rgb_flat_depth"}
    return {
        name: round(sum(score[key] * count for score, count in scores) / len(rgb), 2) for name, key in names.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dpdy_core.prior.score", description=__doc__)
    parser.add_argument("--model", default=BUNDLED, help="dpdy-tiny, a folder or a hub id")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--size", type=int, help="side of the squares, pixels; else the model's own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    try:
        model = load_ldm3d(options.model, resolve_device(options.device))
        rgb = read_squares(options.images, options.size or model.resolution).to(model.device)
        sys.stdout.write(json.dumps({"images": len(rgb), "size": rgb.shape[-1], **score_images(model, rgb)}) + "\n")
    except DpdyError as error:
        sys.stderr.write(f"error: {error.detail}. {error.remedy}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
