import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from optimise_scenes import tiny_config, write_capture
from torch import Tensor

from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.config import RefinementConfig, RunConfig
from dpdy_core.errors import Cancelled
from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise import loop
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.optimise.loop import optimise_scene
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.painted_views import PaintedRays
from dpdy_core.optimise.refinement import Refinement, painted_loss
from dpdy_core.prior.finetuned import write_record
from dpdy_core.prior.frames import fitted_to_prior
from dpdy_core.prior.tiny import build_toy
from dpdy_core.progress import Event, Reporter
from dpdy_core.render.renderer import RayRendering, render_camera
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.rundir import RunDir
from dpdy_core.section import constant

RED = (0.9, 0.1, 0.1)


class RedPainter:
    """Stands for `RgbdPainter`: what is unknown is red and two units away."""

    def __init__(self, *_: object) -> None:
        self.resolution, self.multiple = 12, 3

    def paint(
        self, rgb: Tensor, depth: Tensor, known: Tensor, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        assert rgb.shape[1:] in ((3, 9, 12), (3, 12, 12))
        assert depth.shape == known.shape == (len(rgb), 1, *rgb.shape[2:])
        assert 0 <= progress <= 1
        red = torch.tensor(RED)[None, :, None, None] + 0.01 * torch.rand(1, generator=generator)
        return torch.where(known > 0.5, rgb, red), torch.where(known > 0.5, 1 / depth, torch.full_like(depth, 0.5))


def refining(**settings: Any) -> dict[str, Any]:
    return {
        "refinement": {"enabled": True, "begin": 0.3, "every": 3, "pool": 2, "views": 1, "candidates": 2, **settings}
    }


@pytest.fixture(scope="module")
def toy_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    build_toy().save(folder / "model")
    record = {"method": "none", "prompt": "a scene", "resolution": 16, "rank": 4, "text": False}
    write_record(folder, {**record, "base": str(folder / "model")})
    return folder


@pytest.fixture
def run(tmp_path: Path, toy_prior: Path) -> RunDir:
    run = write_capture(tmp_path / "run")
    shutil.copytree(toy_prior, run.prior)
    return run


def rendering(colour: Tensor, disparity: Tensor, static: Tensor | None) -> RayRendering:
    """A rendering of which only these are looked at."""
    rest = dict.fromkeys(
        ("depth", "opacity", "dynamic", "edges", "weights", "ratio", "shadow", "proposal_edges", "proposal_weights"),
        disparity,
    )
    return RayRendering(colour=colour, static_colour=static, dynamic_colour=None, disparity=disparity, **rest)


def test_the_loss_is_the_weighted_sum_of_its_three_errors() -> None:
    rays = torch.zeros(3, 3)
    weight, still = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
    target = PaintedRays(rays, rays, rays[:, 0], rays, torch.tensor([0.5, 0.25, 9.0]), still, weight)
    colour = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.6, 0.0], [5.0, 5.0, 5.0]])
    static = torch.tensor([[0.0, 0.0, 0.9], [7.0, 7.0, 7.0], [7.0, 7.0, 7.0]])
    disparity = torch.tensor([0.75, 0.75, 100.0])
    squares = (0.09 / 3 + 0.36 / 3) / 2
    depth = 4.0 * (0.25 + 0.5) / 2
    got = painted_loss(rendering(colour, disparity, static), target, 4.0, 0.1, 0.2)
    assert float(got) == pytest.approx(squares + 0.1 * depth + 0.2 * 0.81 / 3, rel=1e-5)
    alone = painted_loss(rendering(colour, disparity, None), target, 4.0, 0.1, 0.0)
    assert float(alone) == pytest.approx(squares + 0.1 * depth, rel=1e-5)


@pytest.mark.parametrize("planes", [False, True])
def test_unseen_places_become_what_was_painted(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planes: bool
) -> None:
    """Where no frame looks, a scene with refinement shows the painter's red, and where frames look it doesn't.

    The steps are as many as it takes with any of three seeds until the fields tell one from the other.
    """
    monkeypatch.setattr(loop, "RgbdPainter", RedPainter)
    common: dict[str, Any] = {"steps": 400, "rays": 256, "grid_learning_rate": 0.03, "mlp_learning_rate": 0.01}
    common["fields"] = tiny_config().scene.fields.model_copy(update={"static_planes": planes})
    config = tiny_config(**common, **refining(begin=0.5, weight=0.2, orbit=45, every=10, pool=24, views=4, rays=0.5))
    plain = RunDir(tmp_path / "plain")
    shutil.copytree(run.root, plain.root)
    events: list[Event] = []
    optimise_scene(run, config, Reporter(events.append, interval=0.0))
    optimise_scene(plain, tiny_config(**common), Reporter())
    assert any("refined" in e["numbers"] for e in events if e["event"] == "step")
    told = [e["message"] for e in events if "message" in e]
    assert any("has not learnt to complete pictures" in message for message in told), told

    def redness(of: RunDir) -> tuple[float, float]:
        """Mean distance from red of what no frame saw, and the error of the training frames."""
        scene, clip = load_scene(of.scene, "cpu"), load_clip(of.capture, "train", 24)
        assert clip is not None
        aimed = AimedViews(NovelViews(clip, scene.bounds, 12), TrainingViews(clip, scene), 4, constant(45))
        distance = []
        cameras, times = aimed.draw(12, 1.0, torch.Generator().manual_seed(3))
        unseen = aimed.unseen(cameras, times)[:, 0] > 0
        for k, time in enumerate(times):
            view = render_camera(scene, cameras, k, float(time), 4096)
            distance.append((view.colour[unseen[k]] - torch.tensor(RED)).square().mean(dim=-1))
        frame = render_camera(scene, clip.cameras, 2, float(clip.times[2]), 4096)
        return float(torch.cat(distance).mean()), float((frame.colour - clip.colours()[2]).square().mean())

    red, error = redness(run)
    plain_red, _ = redness(plain)
    assert red < 0.5 * plain_red
    assert error < 2e-3  # 27 dB; red itself would be 6


def test_the_view_with_most_to_paint_is_taken(run: RunDir) -> None:
    optimise_scene(run, tiny_config(), Reporter())
    scene, clip = load_scene(run.scene, "cpu"), load_clip(run.capture, "train", 24)
    assert clip is not None
    painter = RedPainter()
    novel, views = NovelViews(clip, scene.bounds, 12), TrainingViews(clip, scene)
    shares = []
    for candidates in (1, 6):
        aimed = AimedViews(novel, views, candidates, constant(35))
        refinement = Refinement(RefinementConfig(views=6), painter, scene, aimed, [], None, 16)
        generator = torch.Generator().manual_seed(0)
        refinement.paint(1.0, generator)
        shares.append(float(refinement.pool.painted[:6].mean()))
    assert shares[1] > shares[0]
    everywhere = Refinement(RefinementConfig(unseen_only=False, views=1), painter, scene, aimed, [], None, 16)
    everywhere.paint(1.0, torch.Generator().manual_seed(0))
    assert everywhere.pool.painted[0].eq(1).all()


def test_what_one_view_was_painted_with_is_known_to_the_next(run: RunDir) -> None:
    """The same camera again finds next to nothing left to paint; another one, less than it would have."""
    optimise_scene(run, tiny_config(), Reporter())
    scene, clip = load_scene(run.scene, "cpu"), load_clip(run.capture, "train", 24)
    assert clip is not None
    aimed = AimedViews(NovelViews(clip, scene.bounds, 12), TrainingViews(clip, scene), 1, constant(45))
    refinement = Refinement(RefinementConfig(views=4, pool=12), RedPainter(), scene, aimed, [], None, 16)
    refinement.paint(0.0, torch.Generator().manual_seed(0))
    refinement.paint(0.0, torch.Generator().manual_seed(0))
    first, again = (float(refinement.pool.painted[some].mean()) for some in (slice(4), slice(4, 8)))
    assert first > 0.02
    assert again < 0.2 * first
    cameras, times = aimed.draw(4, 1.0, torch.Generator().manual_seed(1))
    painted = refinement.pool.points(aimed.novel.focal)
    whole, rest = (float(aimed.unseen(cameras, times, points).mean()) for points in (None, painted))
    assert 0 < rest < 0.9 * whole
    assert refinement.due(60)
    refinement.paint(0.0, torch.Generator().manual_seed(2))
    assert not refinement.due(120)  # the pool is full


@pytest.mark.parametrize(("size", "wanted"), [((24, 18), (12, 9)), ((640, 360), (12, 9)), ((90, 160), (9, 12))])
def test_views_have_the_shape_of_the_frames(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert fitted_to_prior(*size, resolution=12, multiple=3) == wanted


def test_pictures_that_are_not_finite_do_not_ruin_the_scene(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    class NanPainter(RedPainter):
        def paint(self, *arguments: Any) -> tuple[Tensor, Tensor]:
            colour, inverse = super().paint(*arguments)
            return colour * torch.nan, inverse

    monkeypatch.setattr(loop, "RgbdPainter", NanPainter)
    optimise_scene(run, tiny_config(**refining()), Reporter())
    checkpoint = newest_checkpoint(run.scene)
    assert checkpoint is not None
    assert all(torch.isfinite(v).all() for name, v in checkpoint.tensors.items() if name.startswith("scene."))


def test_a_run_without_a_prior_says_so(tmp_path: Path) -> None:
    events: list[Event] = []
    optimise_scene(write_capture(tmp_path / "run"), tiny_config(**refining()), Reporter(events.append, interval=0.0))
    assert [e["message"] for e in events if e["event"] == "fallback"]


class StopAt:
    """A sink that asks for a stop when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.reporter = Reporter(self, interval=0.0)

    def __call__(self, event: Event) -> None:
        if event["event"] == "step" and event["step"] >= self.step:
            self.reporter.request_stop()


@pytest.mark.parametrize("depth", [True, False])
def test_a_run_with_a_real_prior_resumes_to_the_same_bits(tmp_path: Path, toy_prior: Path, depth: bool) -> None:
    """With painted views, and with distillation beside them that begins later."""
    sds = {"begin": 0.6, "every": 2, "resolution": 16}
    config: RunConfig = tiny_config(sds=sds, **refining(sampling_steps=2))
    start = write_capture(tmp_path / "start", depth=depth)
    shutil.copytree(toy_prior, start.prior)
    whole, stopped = (RunDir(tmp_path / name) for name in ("whole", "stopped"))
    for each in (whole, stopped):
        shutil.copytree(start.root, each.root)
    optimise_scene(whole, config, Reporter())
    for step in (3, 5, 8):
        with pytest.raises(Cancelled):
            optimise_scene(stopped, config, StopAt(step).reporter)
    optimise_scene(stopped, config, Reporter())
    left, right = (newest_checkpoint(each.scene) for each in (whole, stopped))
    assert left is not None
    assert right is not None
    assert left.tensors.keys() == right.tensors.keys()
    assert [name for name in left.tensors if not torch.equal(left.tensors[name], right.tensors[name])] == []
