"""Run folders that hold the analytic scene."""

from collections.abc import Callable
from pathlib import Path

import pytest
from analytic_scene import AnalyticScene, render_analytic, write_capture
from torch import Tensor

from dpdy_core.config import RenderConfig, RunConfig
from dpdy_core.output import evaluation, export, views
from dpdy_core.progress import Reporter, append_file
from dpdy_core.render.renderer import Rendering
from dpdy_core.rundir import RunDir


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(device="cpu", render=RenderConfig(seconds=0.5))


@pytest.fixture
def make_run(tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], RunDir]:
    """A function that makes a run with a finished analytic scene and so many test frames."""
    for module in (views, evaluation, export):
        monkeypatch.setattr(module, "render_camera", render_analytic)
        monkeypatch.setattr(module, "load_scene", lambda *_: AnalyticScene())

    def make(test_frames: int) -> RunDir:
        run = RunDir(tmp_path / "run")
        run.write_config(config, Path("/somewhere/clip.mp4"), {})
        write_capture(run, test_frames)
        run.mark_done("scene", "abc", seconds=3.0, peak_memory_bytes=2**28)
        return run

    return make


@pytest.fixture
def recolour(
    make_run: Callable[[int], RunDir], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """A function that makes evaluation render colours (H, W, 3) changed by a function."""
    assert make_run  # replaces the renderer first
    true = evaluation.render_camera

    def change(alter: Callable[[Tensor], Tensor]) -> None:
        def render(*args: object, **kwargs: object) -> Rendering:
            good = true(*args, **kwargs)
            return Rendering(alter(good.colour), good.depth, good.opacity, good.dynamic)

        monkeypatch.setattr(evaluation, "render_camera", render)

    return change


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    made = Reporter(append_file(tmp_path / "run" / "events.jsonl"), interval=0.0)
    made.start("render")
    return made
