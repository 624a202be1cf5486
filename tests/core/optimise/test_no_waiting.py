"""A training step never asks the device for a number: each such question would stop the host until the GPU is done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from optimise_scenes import tiny_config, write_capture
from torch.utils._python_dispatch import TorchDispatchMode

from dpdy_core.config import FieldsConfig
from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise.training import Training
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


@pytest.mark.parametrize("blend", ["additive", "learned"])
def test_a_step_does_not_wait(tmp_path: Path, blend: str) -> None:
    fields = FieldsConfig.model_validate({**tiny_config().scene.fields.model_dump(), "blend": blend})
    config = tiny_config(fields=fields, refine_cameras=True, exposure=True, novel_rays=0.1).scene
    clip = load_clip(write_capture(tmp_path).capture, "train", 24)
    assert clip is not None
    clip.valid[:, :, :3] = False
    scene = Scene(
        config.fields, config.sampling, find_bounds(clip), len(clip), "torch", torch.Generator().manual_seed(0)
    )
    training = Training(config, scene, clip, torch.Generator().manual_seed(0))
    training.optimiser.step = lambda: None  # type: ignore[method-assign,assignment]  # torch's own; on a GPU it is fused
    training.advance()
    with Watch() as watch:
        training.advance()
    assert watch.caught == []


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
