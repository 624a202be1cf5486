"""The state of the optimisation and one step of it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dpdy_core.checkpoint import Checkpoint, tensors_below
from dpdy_core.config import SceneConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.camera_corrections import CameraCorrections
from dpdy_core.optimise.carried_pixels import CarriedPixels
from dpdy_core.optimise.checkpoint import FRAMES, SCENE, build_scene
from dpdy_core.optimise.distillation import Distillation
from dpdy_core.optimise.exposure import Exposure
from dpdy_core.optimise.graphed_step import GraphedStep
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.objective import Observation, free_terms, is_used, observed_terms, weighted_sum
from dpdy_core.optimise.ray_batch import TrainingRays
from dpdy_core.optimise.refinement import Refinement
from dpdy_core.optimise.schedule import camera_rate_factor, learning_rate_factor, proposal_anneal
from dpdy_core.optimise.video_distillation import VideoDistillation
from dpdy_core.render.renderer import RayRendering, render_rays
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.scene.scene import Scene
from dpdy_core.section import Number

GENERATOR = "generator"
PAINTED = "painted."  # prefix of the pool of painted views
WITNESS = "training_depth"  # rendered depth of the training views that the prior began with


class Training:
    """Scene, Adam and random numbers at one step, and how to go on. `clip` and `carried` lie on the device."""

    def __init__(
        self,
        config: SceneConfig,
        scene: Scene,
        clip: Clip,
        generator: torch.Generator,
        carried: CarriedPixels | None = None,
    ) -> None:
        self.config, self.scene, self.clip, self.generator = config, scene, clip, generator
        self.step = 0
        self.distillation: Distillation | None = None
        self.video: VideoDistillation | None = None
        self.refinement: Refinement | None = None
        self.views: TrainingViews | None = None  # the training views that all three began with
        self.graphed: GraphedStep | None = None
        self.graphed_distillation: GraphedStep | None = None
        self.graphed_refinement: GraphedStep | None = None
        self.distilled: dict[str, Tensor] = {}  # numbers of the last distillation steps, to report
        metric = config.losses.depth_loss == "aligned"
        # what says where the frames' surfaces lie: depth does, where the scene is held to it
        self.witnesses = clip if metric else replace(clip, depth=None)
        novel = NovelViews(self.witnesses, scene.bounds, config.sds.resolution) if config.novel_rays > 0 else None
        self.rays = TrainingRays(
            clip, config.reaimed if metric else 0.0, novel, config.novel_rays, carried, config.carried
        )
        self.observed = observed_terms(config.losses, config.fields, clip.depth is not None, clip.motion is not None)
        self.free = free_terms(config.losses, config.fields)
        self.decays = is_used(config.losses.w_grid)
        self.alone = {f"{term.name}_alone": True for term in self.observed if term.name in ("static", "dynamic")}
        self.cameras = CameraCorrections(clip.cameras, scene.bounds.radius) if config.refine_cameras else None
        self.exposure = Exposure(len(clip)) if config.exposure else None
        modules = {"cameras": self.cameras, "exposure": self.exposure}
        self.frames = nn.ModuleDict({name: module for name, module in modules.items() if module}).to(clip.times.device)
        groups = scene.parameter_groups() | {name: list(module.parameters()) for name, module in self.frames.items()}
        rates = {
            "grid": config.grid_learning_rate,
            "mlp": config.mlp_learning_rate,
            "cameras": config.camera_learning_rate,
            "exposure": config.exposure_learning_rate,
        }
        self.rates = {name: rates[name] for name in groups}
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
        for group, (name, rate) in zip(self.optimiser.param_groups, self.rates.items(), strict=True):
            group["lr"] = rate * factor * (camera_rate_factor(progress) if name == "cameras" else 1.0)
        if self.graphed is not None:
            numbers = self.graphed(progress)
        else:
            self.optimiser.zero_grad(set_to_none=True)
            numbers = self.reconstruct(progress)
        if self.distillation is not None and self.distillation.due(self.step, progress):
            self.distilled |= (self.graphed_distillation or self.distil)(progress)
        if self.video is not None and self.video.due(self.step, progress):
            loss, logged = self.video.loss(self.step, progress, self.generator, self.corrected())
            loss.backward()
            self.distilled |= {f"video_{name}": value.detach() for name, value in logged.items()}
        if self.refinement is not None and self.refinement.active(progress):
            if self.refinement.due(self.step):
                self.refinement.paint(progress, self.generator)
            numbers = numbers | (self.graphed_refinement or self.refine)(progress)
        self.optimiser.step()
        self.step += 1
        return numbers | self.distilled

    def corrected(self) -> Cameras:
        """The training cameras as they are now."""
        return self.clip.cameras if self.cameras is None else self.cameras.correct(self.clip.cameras)

    def graph(self) -> None:
        """Capture the reconstruction step as a CUDA graph. Raises RuntimeError where that fails."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.graphed = GraphedStep(self.reconstruct, parameters, self.generator)

    def graph_prior(self) -> None:
        """Capture the steps of distillation and refinement, as far as there are, after `graph` and like it.

        They add to the reconstruction's gradients.
        """
        assert self.graphed is not None
        parameters = self.graphed.parameters
        if self.distillation is not None:
            self.graphed_distillation = GraphedStep(self.distil, parameters, self.generator, self.graphed)
        if self.refinement is not None:
            self.graphed_refinement = GraphedStep(self.refine, parameters, self.generator, self.graphed)

    def distil(self, progress: Number) -> dict[str, Tensor]:
        """Gradients of one distillation step, added to those there are, and numbers to report."""
        assert self.distillation is not None
        loss, logged = self.distillation.loss(progress, self.generator)
        loss.backward()
        return {f"sds_{name.removeprefix('sds_')}": value.detach() for name, value in logged.items()}

    def refine(self, progress: Number) -> dict[str, Tensor]:
        """Gradients of the painted views' loss, added to those there are, and numbers to report."""
        assert self.refinement is not None
        loss, logged = self.refinement.loss(progress, self.generator)
        loss.backward()
        return logged

    def reconstruct(self, progress: Number) -> dict[str, Tensor]:
        """Gradients of the losses on one batch of training rays, and their values; `progress` may be a tensor."""
        batch = self.rays.draw(self.config.rays, self.generator, self.corrected(), progress)
        background = torch.rand(3, device=batch.origins.device, generator=self.generator)
        rendering = render_rays(
            self.scene,
            batch.origins,
            batch.directions,
            batch.times,
            background,
            self.generator,
            proposal_anneal(progress),
            **self.alone,
        )
        rendering = self._exposed(rendering, batch.frame)
        observation = Observation(batch, rendering, self.scene.bounds.radius)
        observed, numbers = weighted_sum(self.observed, observation, progress)
        free, more = weighted_sum(self.free, rendering, progress)
        loss = observed + free
        if self.decays:
            decay = self.scene.decay()
            loss = loss + self.config.losses.w_grid.at(progress) * decay
            numbers |= {"grid": decay.detach()}
        if self.cameras is not None:
            loss = loss + self.config.losses.w_cameras.at(progress) * self.cameras.penalty()
            numbers |= self.cameras.numbers()
        if self.exposure is not None:
            numbers |= self.exposure.numbers()
        loss.backward()
        return numbers | more | {"loss": loss.detach()}

    def _exposed(self, rendering: RayRendering, frame: Tensor) -> RayRendering:
        """`rendering` as bright as the frames (R,) that its rays belong to."""
        if self.exposure is None:
            return rendering
        gain = self.exposure.gains()[frame]
        named = {name: getattr(rendering, name) for name in ("colour", "static_colour", "dynamic_colour")}
        return replace(rendering, **{name: value * gain for name, value in named.items() if value is not None})

    def state(self) -> dict[str, Tensor]:
        """All tensors that `restore` needs; of a finished training only the result."""
        tensors = {SCENE + name: value for name, value in self.scene.state_dict().items()}
        tensors |= {FRAMES + name: value for name, value in self.frames.state_dict().items()}
        if self.step >= self.config.steps > 0:
            return tensors | {GENERATOR: self.generator.get_state()}
        for key, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{key}.{name}": value for name, value in moments.items()}
        if self.refinement is not None:
            tensors |= {PAINTED + name: value for name, value in self.refinement.pool.state().items()}
        if self.views is not None and self.views.is_rendered:
            tensors[WITNESS] = self.views.depth
        return tensors | {GENERATOR: self.generator.get_state()}


def restore(
    config: SceneConfig,
    checkpoint: Checkpoint,
    clip: Clip,
    device: torch.device,
    carried: CarriedPixels | None = None,
) -> Training:
    """The training as it was at the checkpoint; its next steps are those that an uninterrupted run would do."""
    generator = torch.Generator(device)
    state = checkpoint.tensors[GENERATOR]
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:  # a checkpoint from another kind of device: its random numbers cannot go on here
        generator.manual_seed(checkpoint.step)
    training = Training(config, build_scene(checkpoint, device), clip, generator, carried)
    training.step = checkpoint.step
    training.frames.load_state_dict(tensors_below(checkpoint, FRAMES))
    moments: dict[int, dict[str, Any]] = {}
    for name, value in checkpoint.tensors.items():
        if name.startswith("adam."):
            _, key, moment = name.split(".")
            moments.setdefault(int(key), {})[moment] = value.clone()
    if moments:
        groups = training.optimiser.state_dict()["param_groups"]
        training.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    return training
