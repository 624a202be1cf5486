"""The network of LPIPS 0.1 (Zhang et al. 2018): AlexNet's features, compared layer by layer under learned weights.

The heads come with torchmetrics. AlexNet's own weights are those that torchvision publishes; whoever has computed LPIPS
on a machine before has them in PyTorch's hub folder, and nothing is ever downloaded here.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpdy_core.errors import BadInput
from dpdy_core.rundir import sha256_file

WEIGHTS = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet_Weights.IMAGENET1K_V1; the name ends in its sha256
CHANNELS = (64, 192, 384, 256, 256)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet, for images in [-1, 1]


class LpipsNetwork(nn.Module):
    """Perceptual distance of two pictures (H, W, 3) in [0, 1]; in float32, as published numbers are."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in CHANNELS)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)

    @classmethod
    def load(cls) -> "LpipsNetwork":
        """The network with its weights, on the CPU. Raises BadInput for a file that is not what its name says."""
        path = weights_file()
        if not sha256_file(path).startswith(path.stem.rpartition("-")[2]):
            raise BadInput(f"{path} is not the file that its name says", "remove it, or fetch it again")
        network = cls()
        network.load_features(torch.load(path, map_location="cpu", weights_only=True))
        network.load_heads(torch.load(_heads_file(), map_location="cpu", weights_only=True))
        return network

    def load_features(self, state: dict[str, Any]) -> None:
        """Take AlexNet's convolutions from torchvision's state `features.<i>.weight`, `.bias`."""
        for place, convolution in zip((0, 3, 6, 8, 10), self.convolutions, strict=True):
            convolution.load_state_dict({key: state[f"features.{place}.{key}"] for key in ("weight", "bias")})

    def load_heads(self, state: dict[str, Any]) -> None:
        """Take the heads from LPIPS' state `lin<i>.model.1.weight`."""
        for place, head in enumerate(self.heads):
            head.load_state_dict({"weight": state[f"lin{place}.model.1.weight"]})

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance, ()."""
        return torch.stack([layer.mean() for layer in self._layers(a, b)]).sum()

    def spatial(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pixel, (H, W): the layers brought to the images' size (`spatial=True` of lpips)."""
        size = a.shape[:2]
        enlarged = [F.interpolate(layer, size, mode="bilinear", align_corners=False) for layer in self._layers(a, b)]
        return torch.cat(enlarged).sum(0)[0]

    def _layers(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """(1, 1, h, w) each: the weighted squared difference of the normalised features."""
        pairs = zip(self._features(a), self._features(b), self.heads, strict=True)
        return [head((_normalised(x) - _normalised(y)).square()) for x, y, head in pairs]

    def _features(self, image: Tensor) -> list[Tensor]:
        x = ((2 * image.float().permute(2, 0, 1)[None] - 1) - self.shift) / self.scale
        found = []
        for place, convolution in enumerate(self.convolutions):
            if place in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(convolution(x))
            found.append(x)
        return found


def weights_file() -> Path:
    """Where AlexNet's weights are looked for: PyTorch's hub folder, which `TORCH_HOME` moves."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def _heads_file() -> Path:
    spec = importlib.util.find_spec("torchmetrics")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "functional/image/lpips_models/alex.pth"


def _normalised(features: Tensor) -> Tensor:
    """Unit length along the channels (`normalize_tensor` of lpips 0.1.4)."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
