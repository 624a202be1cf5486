"""The scene stage: optimise a 4D scene from the training clip and the finetuned prior."""

import math
import shutil
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dpdy_core.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint, tensors_below
from dpdy_core.config import DistillationConfig, RefinementConfig, RunConfig, SceneConfig
from dpdy_core.errors import BadInput, Cancelled, JobFailed
from dpdy_core.ingest.clip import Clip, load_clip, read_transforms
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.carried_pixels import CarriedPixels, find_carried_pixels
from dpdy_core.optimise.checkpoint import scene_header, scene_identity
from dpdy_core.optimise.clip_views import ClipViews
from dpdy_core.optimise.depth_fill import without_holes
from dpdy_core.optimise.distillation import Distillation
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.preview import write_preview
from dpdy_core.optimise.refinement import Refinement
from dpdy_core.optimise.schedule import first_step, prior_begins
from dpdy_core.optimise.training import PAINTED, WITNESS, Training, restore
from dpdy_core.optimise.video_distillation import VideoDistillation
from dpdy_core.prior.finetuned import RECORD
from dpdy_core.prior.frames import fitted_to_prior
from dpdy_core.prior.motion import find_motion_adapter
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.prior.rgbd_painter import RgbdPainter
from dpdy_core.prior.video_guidance import VideoGuidance
from dpdy_core.progress import Reporter
from dpdy_core.render.coverage import Coverage
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.rundir import RunDir
from dpdy_core.runtime import resolve_device
from dpdy_core.scene.contraction import find_bounds
from dpdy_core.scene.fusion import fuse_encoders
from dpdy_core.scene.hashgrid import choose_backend
from dpdy_core.scene.scene import Scene


def optimise_trunk(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Optimise the scene up to the step at which the prior begins; the last checkpoint is of that step."""
    begin = prior_begins(config.scene)
    optimise_scene(run, config, reporter, None if begin is None else first_step(begin, config.scene.steps))


def optimise_scene(run: RunDir, config: RunConfig, reporter: Reporter, stop: int | None = None) -> None:
    """Optimise the scene, or go on from the newest valid checkpoint; the last checkpoint is the result.

    With `stop`, a step before which no prior begins, the optimisation ends there, and needs no prior.

    Raises BadInput for a clip without training frames with cameras, JobFailed if the optimisation diverges, and
    Cancelled, after a checkpoint, if a stop was requested. A run that was killed anywhere and called again ends, on
    a CPU, with the same bits as one that was not.
    """
    clip = load_clip(run.capture, "train", config.scene.max_size)
    if clip is None:
        raise BadInput("no training frame has a camera pose", "check the cameras stage and train_filenames")
    swept = read_transforms(run.capture).get("depth_source") == "sweep"
    if config.scene.fill_depth and swept:
        clip = without_holes(clip)
    device = resolve_device(config.device)
    identity = scene_identity(run, config)
    if newest_checkpoint(run.scene, identity, reporter.warn) is None:
        _initialise(run, config, clip, device, identity)
    checkpoint = newest_checkpoint(run.scene, identity)
    assert checkpoint is not None
    # a swept mover has one depth, no shape that could be shown from elsewhere
    carried = None if swept else _carried(config.scene, clip, device, reporter)
    clip = clip.to(device)
    training = restore(config.scene, checkpoint, clip, device, carried)
    if device.type == "cuda" and (reason := fuse_encoders(training.scene)):
        reporter.fall_back(reason)
    if device.type == "cuda":
        _try_to_graph(training.graph, "optimised", reporter)
    _optimise(run, config, reporter, training, checkpoint, stop)


def _carried(config: SceneConfig, clip: Clip, device: torch.device, reporter: Reporter) -> CarriedPixels | None:
    """What of the movers can be shown at other times than it was seen, if the settings want it and depth is metric."""
    if config.carried == 0 or config.losses.depth_loss != "aligned":
        return None
    found = find_carried_pixels(clip, reporter.check)
    return None if found is None else found.to(device)


def _try_to_graph(graph: Callable[[], None], verb: str, reporter: Reporter) -> None:
    try:
        graph()
    except RuntimeError as error:
        reporter.fall_back(f"the scene is {verb} without a CUDA graph, slower: {error}")


def _initialise(run: RunDir, config: RunConfig, clip: Clip, device: torch.device, identity: str) -> None:
    """Write checkpoint zero, in place of whatever the folder holds."""
    shutil.rmtree(run.scene, ignore_errors=True)
    fields = config.scene.fields
    backend = choose_backend(fields.backend, device)
    generator = torch.Generator().manual_seed(config.seed)
    scene = Scene(fields, config.scene.sampling, find_bounds(clip), len(clip), backend, generator)
    training = Training(config.scene, scene, clip, torch.Generator(device).manual_seed(config.seed))
    save_checkpoint(run.scene, 0, {**scene_header(scene), "identity": identity}, training.state())


def _optimise(
    run: RunDir,
    config: RunConfig,
    reporter: Reporter,
    training: Training,
    checkpoint: Checkpoint,
    stop: int | None,
) -> None:
    scene, steps = training.scene, config.scene.steps if stop is None else stop
    header = {**scene_header(scene), "identity": checkpoint.header["identity"]}
    novel = NovelViews(training.witnesses, scene.bounds, config.scene.sds.resolution)
    begin = _first_use_of_the_prior(run, config, reporter) if stop is None else None
    saved = time.monotonic()
    try:
        while training.step < steps:
            if begin is not None and training.progress >= begin:
                _begin_to_use_the_prior(run, config, training, novel, checkpoint, reporter)
                if training.graphed is not None:
                    _try_to_graph(training.graph_prior, "distilled and refined", reporter)
                begin = None
            numbers = training.advance()
            if training.step % config.scene.preview_every == 0 or training.step == steps:
                _preview(run, training, novel, reporter)
            if time.monotonic() - saved >= config.scene.checkpoint_seconds and training.step < steps:
                save_checkpoint(run.scene, training.step, header, training.state())
                saved = time.monotonic()
            reporter.step(training.step, steps, **(_floats(numbers) if reporter.due() else {}))
    except Cancelled:
        save_checkpoint(run.scene, training.step, header, training.state())
        raise
    save_checkpoint(run.scene, training.step, header, training.state())


def _first_use_of_the_prior(run: RunDir, config: RunConfig, reporter: Reporter) -> float | None:
    """The training progress at which distillation or refinement begins, None if there is neither.

    Raises JobFailed if video distillation is asked for and the motion modules can't be had.
    """
    begin = prior_begins(config.scene)
    if begin is None:
        return None
    if not (run.prior / RECORD).exists():
        reporter.fall_back("there is no finetuned prior in this run: the scene is optimised without distillation")
        return None
    if config.scene.video_sds.enabled:
        find_motion_adapter(config.prior.motion_adapter or config.prior.model)
    return begin


def _begin_to_use_the_prior(
    run: RunDir, config: RunConfig, training: Training, novel: NovelViews, checkpoint: Checkpoint, reporter: Reporter
) -> None:
    """Load the prior, once for images, clips and painted views, which go on from the checkpoint."""
    sds, video, scene, clip = config.scene.sds, config.scene.video_sds, training.scene, training.witnesses
    refinement = config.scene.refinement
    if refinement.enabled or any(term.enabled and term.unseen_only for term in (sds, video)):
        training.views = TrainingViews(clip, scene, checkpoint.tensors.get(WITNESS))
    guidance = RgbdGuidance(run.prior, sds, clip.images.device)
    if sds.enabled:
        aimed = _aimed(novel, training.views, sds)
        training.distillation = Distillation(sds, guidance, scene, novel, aimed, training.free)
    if video.enabled:
        aimed = _aimed(novel, training.views, video)
        coverage = Coverage(training.views, video.resolution) if aimed and training.views else None
        clips = ClipViews(clip, aimed or novel, video.resolution, video.frames, video.real)
        of_clips = VideoGuidance(guidance, config.prior.motion_adapter, video)
        training.video = VideoDistillation(video, of_clips, scene, clips, coverage, training.free)
    if refinement.enabled and training.views is not None:
        painter = RgbdPainter(guidance, refinement)
        if refinement.start == "expected" and not guidance.model.completes:
            reporter.fall_back(
                f"the prior {guidance.base} has not learnt to complete pictures: painted views start from a fill,"
                " on which it paints only if scene.refinement.strength is above 0"
            )
        training.refinement = _refinement(refinement, training, painter, training.views)
        if pool := tensors_below(checkpoint, PAINTED):
            training.refinement.pool.load(pool)


def _aimed(novel: NovelViews, views: TrainingViews | None, config: DistillationConfig) -> AimedViews | None:
    if views is None or not config.unseen_only:
        return None
    return AimedViews(novel, views, config.candidates, config.orbit)


def _refinement(config: RefinementConfig, training: Training, painter: RgbdPainter, views: TrainingViews) -> Refinement:
    """The refinement with an empty pool."""
    cameras = training.clip.cameras
    size = fitted_to_prior(cameras.width, cameras.height, painter.resolution, painter.multiple)
    novel = NovelViews(training.witnesses, training.scene.bounds, *size)
    static = training.config.losses.w_static if training.alone.get("static_alone") else None
    rays = max(1, int(training.config.rays * config.rays))
    aimed = AimedViews(novel, views, config.candidates, config.orbit, widest=False)
    return Refinement(config, painter, training.scene, aimed, training.free, static, rays)


def _preview(run: RunDir, training: Training, novel: NovelViews, reporter: Reporter) -> None:
    path = run.previews / f"scene_{training.step:06d}.jpg"
    write_preview(path, training.scene, training.clip, novel)
    reporter.preview(path.relative_to(run.root).as_posix())


def _floats(numbers: dict[str, Tensor]) -> dict[str, float]:
    """The numbers for people. Raises JobFailed if the loss is not finite."""
    values = {name: float(value) for name, value in numbers.items()}
    if not math.isfinite(values["loss"]):
        raise JobFailed("the optimisation diverged: its loss is not finite", "lower scene.grid_learning_rate")
    return {**values, "psnr": -10 * math.log10(max(values["colour"], 1e-10))}
