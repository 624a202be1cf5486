"""Every setting of a run, as frozen pydantic models. Torch-free: the API validates jobs with the same objects."""

from typing import Literal

from pydantic import Field, model_validator

from dpdy_core.section import Angle, Ramp, Section, Share, Weight, constant
from dpdy_core.stages import STAGES as STAGES

PATH_NAMES = ("input", "stabilised", "bullet-time", "orbit", "test")


class IngestConfig(Section):
    """What is taken from the capture."""

    max_frames: int = Field(200, ge=2, le=5000, description="training frames kept at most")
    selection: Literal["sharp", "even"] = Field(
        "sharp",
        description="sharp: by time and motion, without blurred or repeated frames where the gap stays small; "
        "even: by time alone; captures with splits are always thinned by time alone",
    )
    max_size: int = Field(960, ge=32, le=4096, description="longer side of the stored frames, pixels")
    holdout_every: int = Field(
        8, ge=0, description="a capture without splits keeps every n-th frame for testing; 0 keeps none"
    )


class MasksConfig(Section):
    """Which pixels move."""

    source: Literal["auto", "capture", "epipolar", "none"] = Field(
        "auto", description="auto: the capture's masks if it has them, else optical flow against epipolar geometry"
    )
    max_size: int = Field(480, ge=64, le=2048, description="longer side at which flow is computed, pixels")
    model: str | None = Field(
        None,
        description="folder or hub id of a transformers semantic-segmentation model: its people, animals and vehicles "
        "are masked as a whole where they move, and not at all where they do not",
    )
    refine: bool = Field(
        True, description="once cameras and depth are known, masks found by flow are redrawn against the background"
    )
    threshold: float = Field(1.0, gt=0, description="epipolar (Sampson) distance of a moving pixel at 480 px, pixels")


class CamerasConfig(Section):
    """Where the cameras are."""

    source: Literal["auto", "capture", "sfm"] = Field(
        "auto", description="auto: the capture's poses if it has them, else structure from motion"
    )
    max_size: int = Field(960, ge=64, le=4096, description="longer side of the images that are matched, pixels")
    min_registered: Share = Field(0.5, description="share of training frames that must register")
    interpolate: bool = Field(
        False, description="training frames that do not register get a pose between their neighbours', instead of none"
    )


class DepthConfig(Section):
    """How far away things are, aligned once for the whole clip to the scale of the cameras."""

    source: Literal["auto", "capture", "sweep", "model", "none"] = Field(
        "auto", description="auto: the capture's depth, else a depth model if `model` is set, else a plane sweep"
    )
    model: str | None = Field(None, description="folder or hub id of a transformers depth-estimation model")
    max_size: int = Field(384, ge=32, le=2048, description="longer side at which the plane sweep works, pixels")
    planes: int = Field(64, ge=8, le=512)
    neighbours: int = Field(6, ge=1, le=32, description="other frames that each frame is compared with")
    standing: bool = Field(
        True, description="after a plane sweep, what moves gets the depth of the ground under its lowest part, a guess"
    )


class PriorConfig(Section):
    """The RGB-D diffusion model and its DreamBooth finetuning on the capture's own frames."""

    model: str = Field("dpdy-tiny", description="`dpdy-tiny` (bundled), a diffusers folder or a hub id")
    motion_adapter: str | None = Field(
        None, description="folder or hub id of motion modules for video distillation; None: the prior's own"
    )
    finetune: Literal["lora", "full", "none"] = "full"
    steps: int = Field(200, ge=0)
    batch_size: int = Field(4, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    interpolation: Share = Field(
        0.5,
        gt=0,
        description="the weights used lie this far from the base model's towards the finetuned ones (WiSE-FT): below 1"
        " the prior learns the frames less by heart and keeps its sense of what none of them shows",
    )
    rank: int = Field(8, ge=1, description="LoRA rank; alpha = rank")
    resolution: int = Field(
        128, ge=32, le=1024, description="longer side of the crops, which have the frames' shape, pixels"
    )
    token: str = Field("sks", description="the rare word that stands for this scene")
    class_prompt: str = Field("a scene", description="instance prompt is the class prompt with the token in it")
    preservation_weight: Weight = 1.0
    class_images: int = Field(64, ge=0, description="images sampled from the base model for prior preservation")
    sampling_steps: int = Field(20, ge=1, description="DDIM steps of a class image or a sample")
    train_text_encoder: bool = False
    validation_samples: int = Field(4, ge=0)
    checkpoint_seconds: float = Field(60.0, gt=0)


class GridConfig(Section):
    """One multi-resolution hash grid (Instant-NGP)."""

    levels: int = Field(16, ge=1, le=24)
    features: int = Field(2, ge=1, le=8)
    log2_table: int = Field(19, ge=8, le=24)
    base_resolution: int = Field(16, ge=2)
    max_resolution: int = Field(2048, ge=4)


class FieldsConfig(Section):
    """The static and the dynamic field and how they are joined."""

    backend: Literal["auto", "torch", "tinycudann"] = "auto"
    static_grid: GridConfig = GridConfig()
    dynamic_grid: GridConfig = GridConfig(levels=12, log2_table=18, max_resolution=1024)
    time_resolution: float = Field(1.0, gt=0, description="cells along time per frame at the finest level")
    proposal_grid: GridConfig = GridConfig(levels=6, log2_table=16, max_resolution=256)
    hidden: int = Field(64, ge=8, le=512, description="width of the MLPs")
    view_dependence: bool = Field(
        False, description="static colours may depend on the viewing direction; off extrapolates better from one path"
    )
    dynamic_space_grid: bool = Field(True, description="the dynamic field has a grid over x, y, z beside its three")
    static_planes: bool = Field(True, description="the static field has grids over x, y; x, z and y, z beside its one")
    shadows: bool = Field(True, description="the dynamic field darkens the static one where movers throw a shadow")
    split: bool = Field(True, description="False: one dynamic field, no static one (ablation)")
    blend: Literal["additive", "learned"] = Field(
        "additive", description="additive densities (D2NeRF), or alphas blended by a learned weight (NSFF)"
    )


class SamplingConfig(Section):
    """Samples along a ray."""

    proposal: int = Field(64, ge=4)
    fine: int = Field(48, ge=4)


class LossConfig(Section):
    """Weights of the terms of the objective over training progress."""

    w_colour: Ramp = constant(1.0)
    w_depth: Ramp = constant(0.1)
    depth_loss: Literal["aligned", "affine", "none"] = Field(
        "aligned", description="aligned: L1 on disparity in the clip's scale; affine: the paper's affine-invariant loss"
    )
    w_motion_mask: Ramp = Ramp(start=0.1, end=0.01)
    w_static: Ramp = constant(0.2)
    w_dynamic: Ramp = Field(
        constant(0.3), description="colour of the dynamic field alone, on all pixels (RoDynRF); for blend=learned only"
    )
    w_entropy: Ramp = Ramp(start=1e-4, end=1e-2)
    w_sparsity: Ramp = constant(1e-3)
    w_shadow: Ramp = Field(constant(0.03), description="squared shadow, for fields.shadows")
    w_distortion: Ramp = constant(2e-3)
    w_interlevel: Ramp = constant(1.0)
    w_cameras: Ramp = Field(constant(0.1), description="squared size of the corrections of refine_cameras")
    w_grid: Ramp = Field(constant(0.1), description="mean squared feature of each hashed level of the grids (Zip-NeRF)")


class DistillationConfig(Section):
    """Score distillation: what images and clips have in common."""

    begin: Share = Field(0.5, description="training progress at which it starts")
    every: int = Field(4, ge=1, description="one distillation step every n steps")
    weight: Weight = 1e-4
    guidance: float = Field(7.5, ge=0, description="classifier-free guidance in the diffusers convention")
    resolution: int = Field(64, ge=16, le=1024, description="side of the rendered square view, pixels")
    t_min: Share = 0.02
    t_max: Ramp = Ramp(start=0.5, end=0.3)
    form: Literal["epsilon", "x0"] = Field(
        "epsilon", description="epsilon: w(t) (predicted noise - noise); x0: towards the predicted clean latent"
    )
    weighting: Literal["sds", "uniform", "fantasia3d"] = Field(
        "sds", description="w(t) of form=epsilon, with a = alpha_bar(t): 1 - a, 1, or sqrt(a) (1 - a)"
    )
    rescale: Share = Field(
        0.5, description="of form=x0: how far guidance is kept from raising the contrast of the predicted latent"
    )
    unseen_only: bool = Field(True, description="act only where a view shows nothing that a training frame saw")
    candidates: int = Field(
        8, ge=1, description="of unseen_only: novel cameras drawn for one; that which sees most of the unseen is taken"
    )
    orbit: Angle = Field(
        Ramp(start=20, end=35, begin=0.5),
        description="of unseen_only: how far they stand off the path at most, in degrees",
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest root mean square of the gradient on a latent image")

    @model_validator(mode="after")
    def _timesteps_are_a_range(self) -> "DistillationConfig":
        if min(self.t_max.start, self.t_max.end) <= self.t_min:
            raise ValueError("t_max must stay above t_min")
        return self


class SdsConfig(DistillationConfig):
    """Score distillation from the finetuned RGB-D model at novel views."""

    enabled: bool = True
    every: int = Field(8, ge=1, description="one distillation step every n steps")
    weight: Weight = 5e-5
    views: int = Field(1, ge=1, description="novel views per step")
    rgb_only: bool = Field(False, description="distil colour only; depth is detached (ablation)")


class VideoSdsConfig(DistillationConfig):
    """Score distillation of clips by the finetuned model with motion modules; input frames stand among the rendered."""

    enabled: bool = False
    every: int = Field(16, ge=1, description="one distillation step every n steps")
    frames: int = Field(8, ge=2, le=32, description="length of a clip; at most what the motion modules were made for")
    real: int = Field(
        2, ge=1, le=16, description="input frames at an end of the clip where the camera has not left yet"
    )
    live: int = Field(4, ge=1, description="rendered frames that get a gradient, chosen anew for every clip")

    @model_validator(mode="after")
    def _some_are_rendered(self) -> "VideoSdsConfig":
        if self.real >= self.frames:
            raise ValueError("real must stay below frames")
        return self


class RefinementConfig(Section):
    """Novel views that the finetuned RGB-D model paints anew where no frame saw, as targets for the scene.

    What one view was painted with is known to those after it, which stand further out.
    """

    enabled: bool = True
    begin: Share = Field(0.5, description="training progress at which it starts")
    every: int = Field(60, ge=1, description="new views every n steps")
    views: int = Field(12, ge=1, description="views painted at once: none of them knows what the others show")
    candidates: int = Field(
        4, ge=1, description="novel views drawn for a new one: the first that sees enough of what was filmed is taken"
    )
    orbit: Angle = Field(
        Ramp(start=8, end=40, begin=0.5),
        description="how far views stand off the path at most, in degrees: they grow outward from what was filmed",
    )
    pool: int = Field(204, ge=1, description="painted views, after which no more are")
    start: Literal["expected", "fill"] = Field(
        "expected",
        description="what they are painted from: what the prior expects there, where it has learnt to complete pictures"
        " (dpdy-tiny has), or a smooth fill from what was seen",
    )
    strength: Ramp = Field(
        constant(0.0), description="how much noise they are painted anew from: 0 keeps the start, 1 forgets it"
    )
    sampling_steps: int = Field(6, ge=1, description="DDIM steps of a view")
    guidance: float = Field(1.5, ge=0, description="classifier-free guidance in the diffusers convention")
    rays: Share = Field(0.25, gt=0, description="rays of painted views in a step, as a share of scene.rays")
    weight: Ramp = Ramp(start=0.2, end=0.1, begin=0.5)
    depth_weight: Weight = Field(0.1, description="of the painted disparity, times `weight`")
    unseen_only: bool = Field(True, description="paint, and learn, only what no training frame saw")

    @model_validator(mode="after")
    def _strength_is_a_share(self) -> "RefinementConfig":
        if not all(0 <= strength <= 1 for strength in (self.strength.start, self.strength.end)):
            raise ValueError("strength must lie in [0, 1]")
        return self


class SceneConfig(Section):
    """The optimisation of the scene."""

    steps: int = Field(2000, ge=0)
    rays: int = Field(4096, ge=16, description="rays per step")
    reaimed: Share = Field(
        0.4, description="share of the rays that look at their pixel's surface again from a moved camera; needs depth"
    )
    carried: Share = Field(
        0.1, description="share of the rays that show a mover's surface at a time at which it was hidden; needs depth"
    )
    novel_rays: Share = Field(
        0.0, description="share of the rays that come from novel views, for the terms that need no observation"
    )
    fill_depth: bool = Field(
        True, description="spread depth that a sweep found over the static pixels in which it found none"
    )
    refine_cameras: bool = Field(False, description="correct the training cameras while the scene is optimised")
    exposure: bool = Field(False, description="every training frame has its own gain per colour channel")
    max_size: int = Field(
        512, ge=16, le=4096, description="longer side at which the scene is trained and scored, pixels"
    )
    grid_learning_rate: float = Field(1e-2, gt=0)
    mlp_learning_rate: float = Field(2e-3, gt=0)
    camera_learning_rate: float = Field(1e-3, gt=0, description="of refine_cameras: radians, and shares of the scene")
    exposure_learning_rate: float = Field(5e-3, gt=0, description="of exposure: log-gain")
    final_learning_rate: Share = Field(0.05, description="share of the learning rate left at the end")
    fields: FieldsConfig = FieldsConfig()
    sampling: SamplingConfig = SamplingConfig()
    losses: LossConfig = LossConfig()
    sds: SdsConfig = SdsConfig()
    video_sds: VideoSdsConfig = VideoSdsConfig()
    refinement: RefinementConfig = RefinementConfig()
    checkpoint_seconds: float = Field(60.0, gt=0)
    preview_every: int = Field(500, ge=1)


class RenderConfig(Section):
    """The videos."""

    paths: tuple[str, ...] = Field(
        ("input", "stabilised", "bullet-time", "orbit", "test"),
        description="names, or nerfstudio camera-path JSON files; `test` is left out where there are no test views",
    )
    fps: float | None = Field(None, gt=0, le=240, description="None: the capture's own rate")
    width: int | None = Field(None, ge=16, le=4096, description="None: the size the scene was trained at")
    seconds: float = Field(3.0, gt=0, le=120, description="length of the paths that have none of their own")
    chunk: int = Field(16384, ge=256, description="rays rendered at once")


class EvaluateConfig(Section):
    """The scores."""

    protocol: Literal["plain", "dycheck", "nvidia"] = "plain"


class RunConfig(Section):
    """One run: all that decides its result."""

    preset: str = "fast"
    seed: int = Field(0, ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ingest: IngestConfig = IngestConfig()
    masks: MasksConfig = MasksConfig()
    cameras: CamerasConfig = CamerasConfig()
    depth: DepthConfig = DepthConfig()
    prior: PriorConfig = PriorConfig()
    scene: SceneConfig = SceneConfig()
    render: RenderConfig = RenderConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
