"""Both distillations end to end with a toy prior, and what the clip step hands to its guidance."""

import shutil
from pathlib import Path

import pytest
import torch
from optimise_scenes import tiny_config, write_capture

from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.config import RunConfig
from dpdy_core.errors import Cancelled, JobFailed
from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise import loop
from dpdy_core.optimise.clip_views import ANCHORS, square_depth, square_images
from dpdy_core.optimise.loop import optimise_scene
from dpdy_core.optimise.video_distillation import live_frames
from dpdy_core.prior.finetuned import write_record
from dpdy_core.prior.motion import build_motion_adapter, save_motion_adapter
from dpdy_core.prior.tiny import build_toy
from dpdy_core.prior.video_guidance import VideoGuidance
from dpdy_core.progress import Event, Reporter
from dpdy_core.rundir import RunDir


@pytest.fixture(scope="session")
def toy_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model with its own motion modules, which are not neutral."""
    folder = tmp_path_factory.mktemp("prior") / "toy"
    model = build_toy()
    model.save(folder)
    modules = build_motion_adapter(model.unet, frames=4)
    for name, value in modules.named_parameters():
        if "proj_out" in name:
            torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(1))
    save_motion_adapter(modules, folder / "motion_adapter")
    return folder


def run_with(prior: Path, root: Path, depth: bool = True) -> RunDir:
    run = write_capture(root, depth=depth)
    run.prior.mkdir()
    record = {"base": str(prior), "method": "none", "prompt": "a scene", "resolution": 32, "rank": 4, "text": False}
    write_record(run.prior, record)
    return run


def settings(prior: Path, **video: object) -> RunConfig:
    common = {"begin": 0.3, "resolution": 16, "weight": 1e-2}
    clips = {**common, "enabled": True, "every": 2, "frames": 4, "real": 1, "live": 2, **video}
    config = tiny_config(sds={**common, "every": 3, "views": 2, "form": "x0"}, video_sds=clips)
    return config.model_copy(update={"prior": config.prior.model_copy(update={"model": str(prior)})})


def tensors(run: RunDir) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(run.scene)
    assert checkpoint is not None
    return {name: value for name, value in checkpoint.tensors.items() if name.startswith("scene.")}


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step
        self.reporter = Reporter(self, interval=0.0)

    def __call__(self, event: Event) -> None:
        if event["event"] == "step" and event["step"] >= self.step:
            self.reporter.request_stop()


@pytest.mark.parametrize("depth", [True, False])
def test_both_distillations_run_and_resume_to_the_same_bits(toy_prior: Path, tmp_path: Path, depth: bool) -> None:
    whole = run_with(toy_prior, tmp_path / "whole", depth)
    stopped, without = RunDir(tmp_path / "stopped"), RunDir(tmp_path / "without")
    for other in (stopped, without):
        shutil.copytree(whole.root, other.root)
    config = settings(toy_prior)
    config = config.model_copy(update={"scene": config.scene.model_copy(update={"refine_cameras": depth})})
    events: list[Event] = []
    optimise_scene(whole, config, Reporter(events.append, interval=0.0))
    numbers = [e["numbers"] for e in events if e["event"] == "step"][-1]
    assert numbers["video_gradient"] > 0
    assert numbers["sds_gradient"] > 0
    for step in (3, 7):  # before the distillations begin, and between two clips
        with pytest.raises(Cancelled):
            optimise_scene(stopped, config, StopAt(step).reporter)
    optimise_scene(stopped, config, Reporter())
    left, right = tensors(whole), tensors(stopped)
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert all(torch.isfinite(value).all() for value in left.values())
    optimise_scene(without, settings(toy_prior, enabled=False), Reporter())
    assert any(not torch.equal(left[name], value) for name, value in tensors(without).items())


@pytest.mark.parametrize("depth", [True, False])
def test_the_clip_mixes_input_frames_with_rendered_ones(
    toy_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: bool
) -> None:
    """Every call: input frames are those of the video and carry no gradient; only live ones get one."""
    calls = []
    loss = VideoGuidance.loss

    def watch(self: VideoGuidance, rgb, depths, act, live, progress, generator):  # type: ignore[no-untyped-def]
        value, numbers = loss(self, rgb, depths, act, live, progress, generator)
        gradients = torch.autograd.grad(value, (rgb, depths), retain_graph=True)
        calls.append((rgb.detach(), depths.detach(), act, live, gradients))
        return value, numbers

    monkeypatch.setattr(VideoGuidance, "loss", watch)
    run = run_with(toy_prior, tmp_path / "run", depth)
    optimise_scene(run, settings(toy_prior, unseen_only=False), Reporter())
    assert len(calls) == 4  # steps 4, 6, 8 and 10 of 12
    clip = load_clip(run.capture, "train", 24)
    assert clip is not None
    frames = square_images(clip.images, 16)
    for step, (rgb, depths, act, live, gradients) in zip((4, 6, 8, 10), calls, strict=True):
        anchor = ANCHORS[step // 2 % 3]
        real = {"start": [0], "end": [3], "both": [0, 3]}[anchor]
        assert act is None
        assert len(live) == 2
        assert not set(live) & set(real)
        starts = [s for s in range(3) if all(torch.equal(rgb[k], frames[s + k]) for k in real)]
        assert len(starts) == 1
        if clip.depth is not None:
            truth = square_depth(clip.depth[starts[0] : starts[0] + 4], 16)
            assert all(torch.equal(depths[k], truth[k]) for k in real)
        assert all((depths[k] > 0).all() for k in range(4))
        for gradient in gradients:
            for k in range(4):
                assert bool(gradient[k].any()) == (k in live)


def test_only_the_unseen_is_touched(toy_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = []
    loss = VideoGuidance.loss

    def watch(self: VideoGuidance, rgb, depth, act, live, progress, generator):  # type: ignore[no-untyped-def]
        value, numbers = loss(self, rgb, depth, act, live, progress, generator)
        (gradient,) = torch.autograd.grad(value, rgb, retain_graph=True)
        assert gradient[act.expand_as(rgb) == 0].eq(0).all()
        acts.append(act)
        return value, numbers

    monkeypatch.setattr(VideoGuidance, "loss", watch)
    optimise_scene(run_with(toy_prior, tmp_path / "run"), settings(toy_prior), Reporter())
    assert {float(v) for act in acts for v in act.unique()} == {0.0, 1.0}
    assert all(act.shape == (4, 1, 16, 16) for act in acts)


@pytest.mark.parametrize("network", ["unet", "motion"])
def test_nan_from_the_networks_cannot_reach_the_scene(
    toy_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    make = loop.VideoGuidance

    def broken(*arguments):  # type: ignore[no-untyped-def]
        guidance = make(*arguments)
        if network == "unet":
            guidance.unet.conv_out.weight.data.fill_(torch.nan)  # shared with the image UNet
        else:
            guidance.unet.down_blocks[0].motion_modules[0].proj_out.weight.data.fill_(torch.nan)
        return guidance

    monkeypatch.setattr(loop, "VideoGuidance", broken)
    run = run_with(toy_prior, tmp_path / "run")
    optimise_scene(run, settings(toy_prior), Reporter())
    assert all(torch.isfinite(value).all() for value in tensors(run).values())


def test_missing_motion_modules_are_said_before_the_scene_is_trained(toy_prior: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(toy_prior, bare)
    shutil.rmtree(bare / "motion_adapter")
    events: list[Event] = []
    with pytest.raises(JobFailed, match="holds no motion adapter"):
        optimise_scene(run_with(bare, tmp_path / "run"), settings(bare), Reporter(events.append, interval=0.0))
    assert not [e for e in events if e["event"] == "step"]


def test_live_frames_change_with_the_step_and_are_never_real() -> None:
    chosen = {tuple(live_frames(8, [0, 1], 3, step)) for step in range(0, 200, 4)}
    assert len(chosen) > 10
    assert all(len(c) == 3 and list(c) == sorted(set(c)) and min(c) >= 2 for c in chosen)
    assert live_frames(4, [0], 9, 0) == [1, 2, 3]
    assert live_frames(8, [0, 1], 3, 5) == live_frames(8, [0, 1], 3, 5)
