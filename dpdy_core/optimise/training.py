"""The state of the optimisation and one step of it."""

from typing import Any

import torch
from torch import Tensor

from dpdy_core.config import SceneConfig
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.checkpoint import SCENE, Checkpoint, build_scene
from dpdy_core.optimise.distillation import Distillation
from dpdy_core.optimise.objective import Observation, free_terms, observed_terms, weighted_sum
from dpdy_core.optimise.ray_batch import TrainingRays
from dpdy_core.optimise.schedule import learning_rate_factor, proposal_anneal
from dpdy_core.render.renderer import render_rays
from dpdy_core.scene.scene import Scene

GENERATOR = "generator"
WITNESS = "training_depth"  # rendered depth of the training views that distillation began with


class Training:
    """Scene, Adam and random numbers at one step, and how to go on. `clip` lies on the device."""

    def __init__(self, config: SceneConfig, scene: Scene, clip: Clip, generator: torch.Generator) -> None:
        self.config, self.scene, self.clip, self.generator = config, scene, clip, generator
        self.step = 0
        self.distillation: Distillation | None = None
        self.distilled: dict[str, Tensor] = {}  # numbers of the last distillation step, to report
        metric = config.losses.depth_loss == "aligned"
        self.rays = TrainingRays(clip, config.reaimed if metric else 0.0)
        losses, split = config.losses, config.fields.split
        self.observed = observed_terms(losses, split, clip.depth is not None, clip.motion is not None)
        self.free = free_terms(losses, split)
        self.static_alone = any(term.name == "static" for term in self.observed)
        groups = scene.parameter_groups()
        self.rates = {"grid": config.grid_learning_rate, "mlp": config.mlp_learning_rate}
        self.optimiser = torch.optim.Adam(
            [{"params": groups[name], "lr": rate} for name, rate in self.rates.items()],
            betas=(0.9, 0.99),
            eps=1e-15,
            fused=True,
        )

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        return self.step / max(self.config.steps, 1)

    def advance(self) -> dict[str, Tensor]:
        """Do one step; the values of its losses as 0-dim tensors."""
        progress = self.progress
        factor = learning_rate_factor(progress, self.config.final_learning_rate)
        for group, rate in zip(self.optimiser.param_groups, self.rates.values(), strict=True):
            group["lr"] = rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        numbers = self._reconstruct(progress)
        if self.distillation is not None and self.distillation.due(self.step, progress):
            loss, logged = self.distillation.loss(progress, self.generator)
            loss.backward()
            self.distilled = {f"sds_{name.removeprefix('sds_')}": value.detach() for name, value in logged.items()}
        self.optimiser.step()
        self.step += 1
        return numbers | self.distilled

    def _reconstruct(self, progress: float) -> dict[str, Tensor]:
        batch = self.rays.draw(self.config.rays, self.generator)
        background = torch.rand(3, device=batch.origins.device, generator=self.generator)
        rendering = render_rays(
            self.scene,
            batch.origins,
            batch.directions,
            batch.times,
            background,
            self.generator,
            proposal_anneal(progress),
            self.static_alone,
        )
        observation = Observation(batch, rendering, self.scene.bounds.radius, len(self.clip))
        observed, numbers = weighted_sum(self.observed, observation, progress)
        free, more = weighted_sum(self.free, rendering, progress)
        loss = observed + free
        loss.backward()
        return numbers | more | {"loss": loss.detach()}

    def state(self) -> dict[str, Tensor]:
        """All tensors that `restore` needs; of a finished training the scene alone."""
        tensors = {SCENE + name: value for name, value in self.scene.state_dict().items()}
        if self.step >= self.config.steps > 0:
            return tensors | {GENERATOR: self.generator.get_state()}
        for key, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{key}.{name}": value for name, value in moments.items()}
        views = self.distillation.views if self.distillation is not None else None
        if views is not None and views.is_rendered:
            tensors[WITNESS] = views.depth
        return tensors | {GENERATOR: self.generator.get_state()}


def restore(config: SceneConfig, checkpoint: Checkpoint, clip: Clip, device: torch.device) -> Training:
    """The training as it was at the checkpoint; its next steps are those that an uninterrupted run would do."""
    generator = torch.Generator(device)
    state = checkpoint.tensors[GENERATOR]
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:  # a checkpoint from another kind of device: its random numbers cannot go on here
        generator.manual_seed(checkpoint.step)
    training = Training(config, build_scene(checkpoint, device), clip, generator)
    training.step = checkpoint.step
    moments: dict[int, dict[str, Any]] = {}
    for name, value in checkpoint.tensors.items():
        if name.startswith("adam."):
            _, key, moment = name.split(".")
            moments.setdefault(int(key), {})[moment] = value.clone()
    if moments:
        groups = training.optimiser.state_dict()["param_groups"]
        training.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    return training
