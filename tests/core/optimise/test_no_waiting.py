"""A training step never asks the device for a number: each such question would stop the host until the GPU is done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from optimise_scenes import tiny_config, write_capture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpdy_core.config import FieldsConfig, RefinementConfig, SceneConfig, SdsConfig
from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.distillation import Distillation
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.refinement import Refinement
from dpdy_core.optimise.training import Training
from dpdy_core.prior.finetuned import write_record
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.prior.tiny import build_toy
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.scene.contraction import find_bounds
from dpdy_core.scene.scene import Scene

WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.is_nonzero")
COPYING = ("aten.lift_fresh",)  # a tensor made from Python numbers: on a GPU a copy that waits


class Watch(TorchDispatchMode):
    """Notes the operations that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.caught: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name = str(func)
        indices = args[1] if name.startswith(("aten.index.", "aten.index_put")) else []
        masked = any(index is not None and index.dtype == torch.bool for index in indices)
        if name.startswith(WAITING + COPYING) or masked:
            self.caught.append(name)
        return func(*args, **(kwargs or {}))


def make_training(folder: Path, config: SceneConfig) -> Training:
    clip = load_clip(write_capture(folder).capture, "train", 24)
    assert clip is not None
    clip.valid[:, :, :3] = False
    generator = torch.Generator().manual_seed(0)
    scene = Scene(config.fields, config.sampling, find_bounds(clip), len(clip), "torch", generator)
    return Training(config, scene, clip, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("blend", ["additive", "learned"])
def test_a_step_does_not_wait(tmp_path: Path, blend: str) -> None:
    fields = FieldsConfig.model_validate({**tiny_config().scene.fields.model_dump(), "blend": blend})
    config = tiny_config(fields=fields, refine_cameras=True, exposure=True, novel_rays=0.1).scene
    training = make_training(tmp_path, config)
    training.optimiser.step = lambda: None  # type: ignore[method-assign,assignment]  # torch's own; on a GPU it is fused
    training.advance()
    with Watch() as watch:
        training.advance()
    assert watch.caught == []


def test_a_distillation_step_does_not_wait(tmp_path: Path) -> None:
    """With a real prior, a tiny one, aimed at what no frame saw; `progress` as a tensor, as a CUDA graph has it."""
    sds = SdsConfig(begin=0.0, every=1, resolution=16, views=2, candidates=3)
    training = make_training(tmp_path, tiny_config(sds=sds).scene)
    build_toy().save(tmp_path / "prior" / "model")
    record = {"method": "none", "prompt": "a scene", "resolution": 16, "rank": 4, "text": False}
    write_record(tmp_path / "prior", {**record, "base": str(tmp_path / "prior" / "model")})
    novel = NovelViews(training.clip, training.scene.bounds, sds.resolution)
    aimed = AimedViews(novel, TrainingViews(training.clip, training.scene), sds.candidates, sds.orbit)
    guidance = RgbdGuidance(tmp_path / "prior", sds, "cpu")
    training.distillation = Distillation(sds, guidance, training.scene, novel, aimed, training.free)
    progress, before = torch.tensor(0.6), training.generator.get_state()
    numbers = training.distil(progress)
    with Watch() as watch:
        training.distil(progress)
    assert watch.caught == []
    training.generator.set_state(before)
    torch.testing.assert_close(training.distil(0.6), numbers)


def test_a_step_on_painted_views_does_not_wait(tmp_path: Path) -> None:
    """That painting waits now and then is no matter: the steps between run as a CUDA graph."""
    config = RefinementConfig(pool=4, views=2, candidates=2)
    training = make_training(tmp_path, tiny_config().scene)
    novel = NovelViews(training.clip, training.scene.bounds, 12, 9)
    aimed = AimedViews(novel, TrainingViews(training.clip, training.scene), config.candidates, config.orbit)
    training.refinement = Refinement(config, Grey(), training.scene, aimed, training.free, None, 32)
    training.refinement.paint(0.6, training.generator)
    progress, before = torch.tensor(0.6), training.generator.get_state()
    numbers = training.refine(progress)
    with Watch() as watch:
        training.refine(progress)
    assert watch.caught == []
    training.generator.set_state(before)
    torch.testing.assert_close(training.refine(0.6), numbers)


class Grey:
    """Stands for a painter: all is grey and two units away."""

    resolution, multiple = 12, 3

    def paint(self, rgb: Tensor, depth: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        return torch.full_like(rgb, 0.5), torch.full_like(depth, 0.5)


def test_the_watch_sees_what_waits() -> None:
    x = torch.arange(4.0)
    with Watch() as watch:
        float(x[0])
        x[x > 1]
        bool((x > 1).any())
        x[[0, 1]]
        torch.tensor([1.0, 2.0])
        torch.nonzero(x)
    assert len(watch.caught) == 6, watch.caught
