"""Whether the depth of RGB-D images belongs to their colour: where one has edges, has the other?"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.rgbd import unpack

LUMA = (0.299, 0.587, 0.114)


def edges(image: Tensor) -> Tensor:
    """(B, H, W) length of the gradient (central differences) of `image` (B, 1, H, W), averaged over 3x3 pixels."""
    bordered = pad(image, (1, 1, 1, 1), mode="replicate")
    across = (bordered[..., 1:-1, 2:] - bordered[..., 1:-1, :-2]) / 2
    down = (bordered[..., 2:, 1:-1] - bordered[..., :-2, 1:-1]) / 2
    length = (across.square() + down.square()).sqrt()
    return avg_pool2d(pad(length, (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """(B,) Pearson's correlation over the pixels of `first` and `second` (B, H, W); 0 where one is constant."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (first, second))
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(scale > 1e-12, (a * b).sum(1) / scale.clamp_min(1e-12), torch.zeros_like(scale))


@torch.no_grad()
def depth_consistency(rgb: Tensor, depth: Tensor) -> dict[str, float]:
    """Mean correlation of the edges of `rgb` (B, 3, H, W) with those of `depth` (B, 1, H, W), B > 1, both in [0, 1]:
    of the `own` image, and of the next (`other`), which tells what images have in common anyway."""
    luma = (rgb.float() * torch.tensor(LUMA, device=rgb.device)[:, None, None]).sum(1, keepdim=True)
    colour, shape = edges(luma), edges(depth.float())
    pairs = {"own": shape, "other": shape.roll(1, 0)}
    return {name: round(float(correlation(colour, other).mean()), 3) for name, other in pairs.items()}


@torch.no_grad()
def consistency_scores(
    model: Ldm3d, rgbd: Tensor, captions: list[str], steps: int = 40, batch_size: int = 64
) -> dict[str, dict[str, float]]:
    """`depth_consistency` of the model's `samples` for `captions` (guidance 3), of the `scenes` `rgbd` (B, 4, S, S)
    that these describe, which is the most that can be expected, and of the scenes' `reconstructions`."""
    generator = torch.Generator(model.device).manual_seed(0)
    parts = [captions[i : i + batch_size] for i in range(0, len(captions), batch_size)]
    samples = [model.sample(some, steps, 3.0, generator) for some in parts]
    restored = [model.decoded(model.encode(some)) for some in rgbd.split(batch_size)]
    shown = {"samples": samples, "scenes": [unpack(rgbd)], "reconstructions": restored}
    return {
        name: depth_consistency(torch.cat([rgb for rgb, _ in pairs]), torch.cat([depth for _, depth in pairs]))
        for name, pairs in shown.items()
    }
