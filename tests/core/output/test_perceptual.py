"""LPIPS with the published heads on random features, against a slow reference; FLIP against its package."""

import hashlib
from pathlib import Path

import flip_evaluator
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.signal import correlate
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from dpdy_core.errors import BadInput
from dpdy_core.output.metrics import flip, flip_map, lpips, lpips_missing, lpips_network, mlpips, perceptual
from dpdy_core.output.metrics.lpips_network import LpipsNetwork

HEADS = Path(torchmetrics_lpips.__file__).parent / "lpips_models" / "alex.pth"
SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
LAYERS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))  # place, stride, padding


@pytest.fixture(scope="module")
def features() -> dict[str, torch.Tensor]:
    """AlexNet's state with random weights, named as torchvision's file names them."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, (out, into, side) in SHAPES.items():
        scale = (2 / (into * side * side)) ** 0.5
        state[f"features.{place}.weight"] = scale * torch.randn(out, into, side, side, generator=generator)
        state[f"features.{place}.bias"] = 0.1 * torch.randn(out, generator=generator)
    return state


@pytest.fixture
def weights(features: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights' file where PyTorch keeps such files, its name ending in its hash as torchvision's does."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(features, folder / "alexnet.pth")
    digest = hashlib.sha256((folder / "alexnet.pth").read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(lpips_network, "WEIGHTS", f"alexnet-{digest}.pth")
    perceptual._network.cache_clear()
    return (folder / "alexnet.pth").rename(folder / f"alexnet-{digest}.pth")


@pytest.fixture(autouse=True)
def _forget_the_network() -> None:
    perceptual._network.cache_clear()


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    a = rng.random((height, width, 3))
    return a, np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)


def slow_features(image: np.ndarray, state: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """The five rectified layers, (C, h, w) each, in float64 by scipy's correlation."""
    x = (2 * image - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    x = x.transpose(2, 0, 1)
    found = []
    for number, (place, stride, padding) in enumerate(LAYERS):
        if number in (1, 2):
            height, width = ((side - 3) // 2 + 1 for side in x.shape[1:])
            x = np.array(
                [
                    [[c[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(width)] for i in range(height)]
                    for c in x
                ]
            )
        weight, bias = (state[f"features.{place}.{key}"].double().numpy() for key in ("weight", "bias"))
        padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        planes = [
            correlate(padded, kernel, mode="valid")[0, ::stride, ::stride] + b
            for kernel, b in zip(weight, bias, strict=True)
        ]
        x = np.maximum(np.array(planes), 0)
        found.append(x)
    return found


def slow_layers(a: np.ndarray, b: np.ndarray, state: dict[str, torch.Tensor]) -> list[np.ndarray]:
    heads = torch.load(HEADS, map_location="cpu", weights_only=True)
    layers = []
    for number, (x, y) in enumerate(zip(slow_features(a, state), slow_features(b, state), strict=True)):
        unit_x, unit_y = (f / np.maximum(np.sqrt((f**2).sum(0)), 1e-10) for f in (x, y))
        head = heads[f"lin{number}.model.1.weight"].double().numpy()[0, :, 0, 0]
        layers.append(np.einsum("c,chw->hw", head, (unit_x - unit_y) ** 2))
    return layers


def slow_spatial(layers: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Each layer read between its pixel centres at those of the image, clamped at the border."""
    total = np.zeros((height, width))
    for layer in layers:
        y = (np.arange(height) + 0.5) * layer.shape[0] / height - 0.5
        x = (np.arange(width) + 0.5) * layer.shape[1] / width - 0.5
        total += map_coordinates(layer, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    return total


@pytest.mark.usefixtures("weights")
def test_lpips_and_mlpips_equal_a_slow_reference(features: dict[str, torch.Tensor]) -> None:
    a, b = pair(40, 52)
    layers = slow_layers(a, b, features)
    assert lpips_missing() is None
    assert lpips(a, b) == pytest.approx(sum(layer.mean() for layer in layers), abs=1e-5)
    mask = np.random.default_rng(0).random((40, 52)) < 0.6
    assert lpips(a, b, mask) == pytest.approx(slow_spatial(layers, 40, 52)[mask].mean(), abs=1e-5)
    blacked = slow_layers(a * mask[..., None], b * mask[..., None], features)
    assert mlpips(a, b, mask) == pytest.approx(slow_spatial(blacked, 40, 52)[mask].mean(), abs=1e-5)
    assert mlpips(a, b) == pytest.approx(slow_spatial(layers, 40, 52).mean(), abs=1e-5)
    assert lpips(a, a) == 0
    assert lpips(a, b, np.zeros((40, 52))) is None
    assert mlpips(a, b, np.zeros((40, 52))) is None
    assert lpips(a[:30], b[:30]) is None


def test_without_weights_lpips_is_none_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    a, b = pair(40, 52)
    assert lpips(a, b) is None
    assert mlpips(a, b, np.ones((40, 52))) is None
    assert "alexnet-owt-7be5be79.pth" in (lpips_missing() or "")


def test_a_damaged_file_of_weights_is_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BadInput, match="not the file"):
        LpipsNetwork.load()


def test_flip_is_its_package_and_orders_errors() -> None:
    a, b = pair(40, 52)
    theirs, mean, _ = flip_evaluator.evaluate(b.astype(np.float32), a.astype(np.float32), "LDR", applyMagma=False)
    assert np.allclose(flip_map(a, b).numpy(), theirs[..., 0])
    assert flip(a, b) == pytest.approx(mean, abs=1e-5)
    assert flip(a, a) == pytest.approx(0, abs=1e-6)
    assert flip(np.ones((20, 20, 3)), np.zeros((20, 20, 3))) > 0.95
    assert flip(a, 0.9 * a + 0.1 * b) < flip(a, b)


def test_masked_flip_is_the_mean_of_its_map() -> None:
    a, b = pair(40, 52)
    mask = np.zeros((40, 52), bool)
    mask[5:20, 9:30] = True
    assert flip(a, b, mask) == pytest.approx(flip_map(torch.from_numpy(a), b).numpy()[mask].mean())
    assert flip(a, b, ~mask | mask) == pytest.approx(flip(a, b))
    assert flip(a, b, np.zeros_like(mask)) is None
