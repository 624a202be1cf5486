"""Small multi-layer perceptrons and the activations of the fields."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def mlp(sizes: list[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them, He-initialised, biases zero."""
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layer = nn.Linear(fan_in, fan_out)
        bound = math.sqrt((6.0 if index < len(sizes) - 2 else 3.0) / fan_in)
        layer.weight.data = (torch.rand(fan_out, fan_in, generator=generator) * 2 - 1) * bound
        layer.bias.data.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(max=11).exp()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.clamp(-11, 11).exp()


def truncated_exp(x: Tensor) -> Tensor:
    """exp(x) with value and gradient bounded, so that a saturated density can still come down (Instant-NGP)."""
    return _TruncatedExp.apply(x)


class _TruncatedSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value = x.clamp(-5, 5).sigmoid()
        return grad * value * (1 - value)


def truncated_sigmoid(x: Tensor) -> Tensor:
    """sigmoid(x) with a gradient of at least 0.0066, so that black or white can still become a colour.

    Without it a dark clip's static field can go black in the first steps and stay so.
    """
    return _TruncatedSigmoid.apply(x)


def spherical_harmonics(directions: Tensor) -> Tensor:
    """The first nine real spherical harmonics (..., 9) of unit `directions` (..., 3)."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ],
        dim=-1,
    )
