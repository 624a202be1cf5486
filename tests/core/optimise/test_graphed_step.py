"""The reconstruction step takes its progress as a tensor, so that a CUDA graph can replay it."""

from pathlib import Path

import pytest
import torch
from optimise_scenes import tiny_config, write_capture

from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise.training import Training
from dpdy_core.scene.contraction import find_bounds
from dpdy_core.scene.scene import Scene


def make_training(folder: Path, device: str) -> Training:
    config = tiny_config(exposure=True, novel_rays=0.1).scene
    clip = load_clip(write_capture(folder).capture, "train", 24)
    assert clip is not None
    generator = torch.Generator().manual_seed(0)
    scene = Scene(config.fields, config.sampling, find_bounds(clip), len(clip), "torch", generator).to(device)
    return Training(config, scene, clip.to(torch.device(device)), torch.Generator(device).manual_seed(0))


def gradients(training: Training) -> list[torch.Tensor]:
    return [p.grad.clone() for group in training.optimiser.param_groups for p in group["params"] if p.grad is not None]


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.6, 1.0])
def test_progress_as_a_tensor_gives_the_same_step(tmp_path: Path, progress: float) -> None:
    one, other = make_training(tmp_path / "one", "cpu"), make_training(tmp_path / "other", "cpu")
    numbers, same = one.reconstruct(progress), other.reconstruct(torch.tensor(progress))
    torch.testing.assert_close(numbers, same)
    assert gradients(one)
    torch.testing.assert_close(gradients(one), gradients(other))


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@on_gpu
def test_a_replayed_graph_is_the_step(tmp_path: Path) -> None:
    one, other = make_training(tmp_path / "one", "cuda"), make_training(tmp_path / "other", "cuda")
    other.graph()
    for _ in range(5):
        numbers, same = one.advance(), {name: value.clone() for name, value in other.advance().items()}
        torch.testing.assert_close(numbers, same, rtol=1e-3, atol=1e-5)  # the sums of scattered gradients have no order


@pytest.mark.gpu
@on_gpu
def test_after_a_failed_capture_the_step_goes_on_eagerly(tmp_path: Path) -> None:
    one, other = make_training(tmp_path / "one", "cuda"), make_training(tmp_path / "other", "cuda")
    honest = other.reconstruct

    def waits(progress: object) -> dict[str, torch.Tensor]:
        numbers = honest(progress)
        float(numbers["loss"])
        return numbers

    other.reconstruct = waits  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        other.graph()
    other.reconstruct = honest  # type: ignore[method-assign]
    for _ in range(3):
        torch.testing.assert_close(one.advance(), other.advance(), rtol=1e-3, atol=1e-5)
    torch.rand(4, device="cuda")
    torch.cuda.empty_cache()
    other.graph()
    assert other.advance()["loss"].isfinite()
