"""The scene stage: it learns, it resumes to the same bits, and it distils."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from optimise_scenes import FakeGuidance, tiny_config, write_capture
from torch import Tensor

from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.config import RunConfig, SdsConfig
from dpdy_core.errors import BadInput, Cancelled, JobFailed
from dpdy_core.ingest.clip import Clip, load_clip, read_transforms, write_transforms
from dpdy_core.optimise import loop
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.optimise.loop import optimise_scene
from dpdy_core.prior.finetuned import RECORD
from dpdy_core.progress import Event, Reporter
from dpdy_core.render.renderer import render_camera
from dpdy_core.rundir import RunDir


class StopAt:
    """A sink that asks for a stop when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.reporter = Reporter(self, interval=0.0)

    def __call__(self, event: Event) -> None:
        if event["event"] == "step" and event["step"] >= self.step:
            self.reporter.request_stop()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return write_capture(tmp_path / "run")


def with_prior(run: RunDir) -> RunDir:
    run.prior.mkdir()
    (run.prior / RECORD).write_text("{}")
    return run


def collect() -> tuple[list[Event], Reporter]:
    events: list[Event] = []
    return events, Reporter(events.append, interval=0.0)


def final_tensors(run: RunDir) -> dict[str, Tensor]:
    checkpoint = newest_checkpoint(run.scene)
    assert checkpoint is not None
    return checkpoint.tensors


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def psnr(run: RunDir) -> float:
    """Of the held-out view."""
    scene, clip = load_scene(run.scene, "cpu"), load_clip(run.capture, "test", 24)
    assert clip is not None
    image = render_camera(scene, clip.cameras, 0, float(clip.times[0]), chunk=4096)
    return float(-10 * (image.colour - clip.colours()[0]).square().mean().log10())


def test_training_makes_the_held_out_view_much_better(run: RunDir, tmp_path: Path) -> None:
    untrained = RunDir(tmp_path / "untrained")
    shutil.copytree(run.root, untrained.root)
    optimise_scene(untrained, tiny_config(steps=0), Reporter())
    rates = {"grid_learning_rate": 0.03, "mlp_learning_rate": 0.01}
    config = tiny_config(steps=150, rays=384, preview_every=150, sampling={"proposal": 24, "fine": 16}, **rates)
    events, reporter = collect()
    optimise_scene(run, config, reporter)
    assert psnr(run) > psnr(untrained) + 3.5
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["step"] == steps[-1]["total"] == 150
    assert steps[-1]["numbers"]["psnr"] > steps[0]["numbers"]["psnr"] + 8
    assert [e["path"] for e in events if e["event"] == "preview"] == ["renders/previews/scene_000150.jpg"]
    strip = cv2.imread(str(run.previews / "scene_000150.jpg"))
    assert strip.shape == (18, 4 * 24, 3)


def settings_that_use_everything() -> RunConfig:
    sds = {"begin": 0.3, "every": 2, "resolution": 16, "weight": 1e-3}
    frames = {"refine_cameras": True, "exposure": True, "novel_rays": 0.1}
    return tiny_config(sds=SdsConfig.model_validate(sds), preview_every=4, **frames)


@pytest.mark.usefixtures("guidance")
@pytest.mark.parametrize("depth", [True, False])
def test_interrupted_runs_end_with_the_same_bits(tmp_path: Path, depth: bool) -> None:
    """Once whole, once stopped on request three times, once killed: all bits agree."""
    config = settings_that_use_everything()
    start = with_prior(write_capture(tmp_path / "start", depth=depth))
    whole, stopped, killed = (RunDir(tmp_path / name) for name in ("whole", "stopped", "killed"))
    for each in (whole, stopped, killed):
        shutil.copytree(start.root, each.root)
    optimise_scene(whole, config, Reporter())

    for step in (2, 5, 9):
        with pytest.raises(Cancelled):
            optimise_scene(stopped, config, StopAt(step).reporter)
    optimise_scene(stopped, config, Reporter())
    assert_same_bits(final_tensors(whole), final_tensors(stopped))

    # A kill loses what came after the last checkpoint, and may leave a torn file behind.
    with pytest.raises(Cancelled):
        optimise_scene(killed, config, StopAt(6).reporter)
    shutil.copytree(killed.scene, tmp_path / "older")
    with pytest.raises(Cancelled):
        optimise_scene(killed, config, StopAt(10).reporter)
    shutil.rmtree(killed.scene)
    shutil.copytree(tmp_path / "older", killed.scene)
    (killed.scene / ".step_0000009.partial.safetensors").write_bytes(b"torn")
    (killed.scene / "step_0000009.safetensors").write_bytes(b"torn")
    optimise_scene(killed, config, Reporter())
    assert_same_bits(final_tensors(whole), final_tensors(killed))


def test_checkpoints_by_time_do_not_change_the_numbers(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(tmp_path / "other")
    shutil.copytree(run.root, other.root)
    optimise_scene(run, tiny_config(), Reporter())
    optimise_scene(other, tiny_config(checkpoint_seconds=1e-6, preview_every=3), Reporter())
    assert_same_bits(final_tensors(run), final_tensors(other))
    assert len(list(other.scene.glob("*.safetensors"))) == 2


def test_a_finished_scene_is_not_trained_again(run: RunDir) -> None:
    optimise_scene(run, tiny_config(), Reporter())
    before = final_tensors(run)
    optimise_scene(run, tiny_config(), Reporter())
    assert_same_bits(before, final_tensors(run))


def test_other_seeds_and_settings_start_anew(run: RunDir) -> None:
    optimise_scene(run, tiny_config(), Reporter())
    before = final_tensors(run)
    optimise_scene(run, tiny_config().model_copy(update={"seed": 1}), Reporter())
    after = final_tensors(run)
    assert not torch.equal(before["scene.static.encoder.table"], after["scene.static.encoder.table"])


def test_distillation_begins_late_and_acts_only_on_the_unseen(run: RunDir, guidance: list[FakeGuidance]) -> None:
    events, reporter = collect()
    optimise_scene(with_prior(run), settings_that_use_everything(), reporter)
    assert len(guidance) == 1
    calls = guidance[0].calls
    assert [c[:2] for c in calls] == [((1, 3, 16, 16), (1, 1, 16, 16))] * 4  # steps 4, 6, 8 and 10 of 12
    assert calls[0][2] >= 0.3
    assert all(act is not None and act.shape == (1, 1, 16, 16) for act in guidance[0].act)
    assert any("sds_gradient" in e["numbers"] for e in events if e["event"] == "step")


def test_a_prior_that_returns_nan_does_not_ruin_the_scene(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    class NanGuidance(FakeGuidance):
        def loss(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
            loss, numbers = super().loss(*arguments)
            return loss * torch.nan, numbers

    monkeypatch.setattr(loop, "RgbdGuidance", NanGuidance)
    optimise_scene(with_prior(run), settings_that_use_everything(), Reporter())
    assert all(torch.isfinite(value).all() for name, value in final_tensors(run).items() if name.startswith("scene."))


def test_a_run_without_a_prior_says_so(run: RunDir, guidance: list[FakeGuidance]) -> None:
    events, reporter = collect()
    optimise_scene(run, settings_that_use_everything(), reporter)
    assert [e["message"] for e in events if e["event"] == "fallback"]
    assert guidance == []


@pytest.mark.parametrize("losses", [{"depth_loss": "affine"}, {"depth_loss": "none"}])
def test_other_depth_losses_train(run: RunDir, losses: dict[str, Any]) -> None:
    optimise_scene(run, tiny_config(losses=losses), Reporter())
    assert psnr(run) > 5


@pytest.mark.usefixtures("guidance")
@pytest.mark.parametrize(("depth_loss", "told"), [("aligned", True), ("affine", False), ("none", False)])
def test_only_depth_that_the_scene_is_held_to_says_what_the_frames_saw(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, depth_loss: str, told: bool
) -> None:
    """Else the scene's surfaces are not where the depth says, and all of them count as never seen."""
    given: list[bool] = []

    def spied(make: Callable[..., Any]) -> Callable[..., Any]:
        def build(clip: Clip, *arguments: Any) -> Any:
            given.append(clip.depth is not None)
            return make(clip, *arguments)

        return build

    for name in ("TrainingViews", "NovelViews"):
        monkeypatch.setattr(loop, name, spied(getattr(loop, name)))
    config = settings_that_use_everything()
    losses = config.scene.losses.model_copy(update={"depth_loss": depth_loss})
    scene = config.scene.model_copy(update={"losses": losses})
    optimise_scene(with_prior(run), config.model_copy(update={"scene": scene}), Reporter())
    assert len(given) >= 2
    assert set(given) == {told}


@pytest.mark.parametrize(
    "fields",
    [{"split": False}, {"blend": "learned"}, {"view_dependence": True}, {"static_planes": False}, {"shadows": False}],
)
def test_ablations_train(run: RunDir, fields: dict[str, Any]) -> None:
    small = tiny_config().scene.fields
    optimise_scene(run, tiny_config(fields=small.model_copy(update=fields)), Reporter())
    assert psnr(run) > 5


def test_a_shadow_that_moves_over_what_stands_still_is_learnt(tmp_path: Path) -> None:
    """A dark band on wall and floor, elsewhere in every frame and in no mask; at a tenth of the usual weight."""
    made = write_capture(tmp_path / "made")
    clip = load_clip(made.capture, "train", 24)
    assert clip is not None
    assert clip.motion is not None
    bands = torch.zeros_like(clip.motion)
    for k, name in enumerate(clip.names):
        bands[k, :, 3 * k + 1 : 3 * k + 7] = True
        image = cv2.imread(str(made.capture / name))
        image[:, 3 * k + 1 : 3 * k + 7] = image[:, 3 * k + 1 : 3 * k + 7] // 2
        cv2.imwrite(str(made.capture / name), image)

    def error(shadows: bool) -> float:
        run = RunDir(tmp_path / str(shadows))
        shutil.copytree(made.root, run.root)
        rates = {"grid_learning_rate": 0.03, "mlp_learning_rate": 0.01}
        config = tiny_config(steps=150, rays=256, losses={"w_shadow": {"start": 0.003, "end": 0.003}}, **rates)
        fields = config.scene.fields.model_copy(update={"shadows": shadows})
        optimise_scene(
            run, config.model_copy(update={"scene": config.scene.model_copy(update={"fields": fields})}), Reporter()
        )
        scene, dark = load_scene(run.scene, "cpu"), load_clip(run.capture, "train", 24)
        assert dark is not None
        squares = []
        for k, time in enumerate(dark.times):
            view = render_camera(scene, dark.cameras, k, float(time), 4096)
            squares.append((view.colour - dark.colours()[k]).square().mean(dim=-1)[bands[k] & ~dark.motion[k]])
        return float(torch.cat(squares).mean())

    assert error(shadows=True) < 0.4 * error(shadows=False)


def test_a_clip_without_depth_and_masks_trains(tmp_path: Path) -> None:
    run = write_capture(tmp_path / "run", depth=False, masks=False)
    optimise_scene(run, tiny_config(), Reporter())
    assert psnr(run) > 5


@pytest.mark.parametrize(
    ("source", "share", "depth_loss", "asked"),
    [
        ("given", 0.1, "aligned", True),
        ("sweep", 0.1, "aligned", False),
        ("given", 0.0, "aligned", False),
        ("given", 0.1, "affine", False),
    ],
)
def test_movers_are_carried_only_if_their_depth_has_shape_and_scale(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, source: str, share: float, depth_loss: str, asked: bool
) -> None:
    calls: list[Clip] = []
    monkeypatch.setattr(loop, "find_carried_pixels", lambda clip, _: calls.append(clip))
    write_transforms(run.capture, {**read_transforms(run.capture), "depth_source": source})
    optimise_scene(run, tiny_config(steps=2, carried=share, losses={"depth_loss": depth_loss}), Reporter())
    assert bool(calls) == asked


def test_the_test_frames_have_no_say(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(tmp_path / "other")
    shutil.copytree(run.root, other.root)
    name = read_transforms(other.capture)["test_filenames"][0]
    cv2.imwrite(str(other.capture / name), torch.randint(0, 255, (18, 24, 3)).numpy())
    for each in (run, other):
        optimise_scene(each, tiny_config(), Reporter())
    assert_same_bits(final_tensors(run), final_tensors(other))


def test_frames_without_cameras_are_a_clear_error(run: RunDir) -> None:
    document = read_transforms(run.capture)
    for frame in document["frames"]:
        del frame["transform_matrix"]
    write_transforms(run.capture, document)
    with pytest.raises(BadInput, match="camera pose"):
        optimise_scene(run, tiny_config(), Reporter())


def test_divergence_is_a_clear_error(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(make: Callable[..., Any]) -> Callable[..., Any]:
        def build(*arguments: Any) -> Any:
            training = make(*arguments)
            for parameter in training.scene.parameters():
                parameter.data.fill_(torch.nan)
            return training

        return build

    monkeypatch.setattr(loop, "restore", broken(loop.restore))
    with pytest.raises(JobFailed, match="diverged"):
        optimise_scene(run, tiny_config(), collect()[1])
