"""The field's protocols on a scene known in closed form."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from analytic_scene import FOCAL, HEIGHT, WIDTH, AnalyticScene, make_camera, render_analytic, save
from torch import Tensor

from dpdy_core.config import EvaluateConfig, RunConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import load_clip, read_transforms, write_transforms
from dpdy_core.output import metrics
from dpdy_core.output.covisibility import covisible
from dpdy_core.output.evaluation import evaluate_run
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, config_hash, read_json, sha256_file, write_json

MakeRun = Callable[[int], RunDir]
LEVEL = 1 / 255


def by(config: RunConfig, protocol: str) -> RunConfig:
    return config.model_copy(update={"evaluate": EvaluateConfig(protocol=protocol)})


def put_covisible(run: RunDir, mask: np.ndarray, **facts: object) -> None:
    """Give all test frames the mask (H, W) bool, and the document `facts`."""
    save(run.capture / "seen.png", mask.astype(np.uint8) * 255)
    document = read_transforms(run.capture)
    for frame in document["frames"]:
        if "test" in frame["file_path"]:
            frame["covisible_path"] = "seen.png"
    write_transforms(run.capture, document | facts)


@pytest.fixture
def blurred(recolour: Callable[[Callable[[Tensor], Tensor]], None]) -> None:
    """The scene renders a blurred picture, so that structure differs."""
    recolour(lambda colour: torch.from_numpy(cv2.GaussianBlur(colour.numpy(), (5, 5), 1.2)))


@pytest.mark.usefixtures("blurred")
def test_dycheck_scores_cut_renders_under_the_masks_at_the_stored_size(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(2)
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    put_covisible(run, mask, source="dycheck", dycheck={"factor": 2})
    small = config.model_copy(update={"scene": config.scene.model_copy(update={"max_size": 24})})
    evaluate_run(run, by(small, "dycheck"), reporter)
    scored = read_json(run.metrics_file)
    assert (scored["protocol"], scored["resolution"], scored["deviations"]) == ("dycheck", [WIDTH, HEIGHT], [])
    test = load_clip(run.capture, "test", 512)
    assert test is not None
    for view in range(2):
        time = float(test.times[view])
        colour = render_analytic(AnalyticScene(), test.cameras, view, time, 1).colour.numpy()
        cut = (cv2.GaussianBlur(colour, (5, 5), 1.2) * 255).clip(0, 255).astype(np.uint8) / 255
        truth = test.images[view].numpy() / 255
        found = scored["views"][view]
        assert found["covisible"]["psnr"] == pytest.approx(metrics.mpsnr(cut, truth, mask), abs=1e-9)
        assert found["covisible"]["ssim"] == pytest.approx(metrics.mssim(cut, truth, mask), abs=1e-9)
        assert found["covisible"]["ssim"] != pytest.approx(metrics.ssim(cut, truth, mask), abs=1e-3)
        assert found["covisible"]["flip"] == pytest.approx(metrics.flip(cut, truth, mask), abs=1e-6)
        assert found["psnr"] == pytest.approx(metrics.psnr(cut, truth), abs=1e-9)
        assert found["ssim"] == pytest.approx(metrics.mssim(cut, truth), abs=1e-9)
    means = [np.mean([v["covisible"][m] for v in scored["views"]]) for m in ("psnr", "ssim")]
    assert [scored["mean"]["covisible"][m] for m in ("psnr", "ssim")] == pytest.approx(means)
    assert any("pck_t is null: the capture has no keypoints" in note for note in scored["notes"])
    assert any("whole map" in note for note in scored["notes"])


@pytest.mark.usefixtures("blurred")
def test_nvidia_scores_480x270_with_the_box_window(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    run = make_run(1)
    document = read_transforms(run.capture)
    scale = 20
    large = {key: document[key] * scale for key in ("w", "cx", "fl_x", "fl_y")} | {"h": 540, "cy": 270.0}
    cameras = Cameras(
        torch.tensor([make_camera(0.9, 0.1)])[:, :3],
        torch.full((1, 2), FOCAL * scale),
        torch.tensor([[WIDTH * scale / 2, 270.0]]),
        WIDTH * scale,
        540,
    )
    truth = render_analytic(AnalyticScene(), cameras, 0, 0.0, 1).colour
    for frame in document["frames"]:
        del frame["depth_file_path"], frame["motion_mask_path"]  # no baseline is warped by depth: it takes long
        save(run.capture / frame["file_path"], (truth.numpy()[..., ::-1] * 255).round().astype(np.uint8))
    write_transforms(run.capture, document | large | {"source": "nvidia"})
    evaluate_run(run, by(config, "nvidia"), reporter)
    scored = read_json(run.metrics_file)
    assert (scored["resolution"], scored["deviations"]) == ([480, 270], [])
    test = load_clip(run.capture, "test", 480)
    assert test is not None
    colour = render_analytic(AnalyticScene(), test.cameras, 0, 0.0, 1).colour.numpy()
    cut = (cv2.GaussianBlur(colour, (5, 5), 1.2) * 255).clip(0, 255).astype(np.uint8) / 255
    view = scored["views"][0]
    assert view["ssim"] == pytest.approx(metrics.box_ssim(cut, test.images[0].numpy() / 255), abs=1e-9)
    assert view["psnr"] == pytest.approx(metrics.psnr(cut, test.images[0].numpy() / 255), abs=1e-9)
    assert any("7x7" in note for note in scored["notes"])


def test_what_keeps_scores_from_comparison_is_said(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    run = make_run(1)
    put_covisible(run, np.ones((HEIGHT, WIDTH), bool))
    evaluate_run(run, by(config, "nvidia"), reporter)
    scored = read_json(run.metrics_file)
    assert len(scored["deviations"]) == 2
    assert "48x36 pixels, not at 480x270" in scored["deviations"][1]
    assert scored["notes"][:2] == scored["deviations"]
    evaluate_run(run, by(config, "dycheck"), reporter)
    assert ["not a DyCheck sequence" in text for text in read_json(run.metrics_file)["deviations"]] == [True]
    put_covisible(run, np.ones((HEIGHT, WIDTH), bool), source="dycheck", dycheck={"factor": 4})
    write_json(run.capture_report_file, {"width": 2 * WIDTH, "height": 2 * HEIGHT})
    evaluate_run(run, by(config, "dycheck"), reporter)
    factor, size = read_json(run.metrics_file)["deviations"]
    assert "factor 4" in factor
    assert "96x72 pixels are scored at 48x36" in size
    evaluate_run(run, config, reporter)
    assert read_json(run.metrics_file)["deviations"] == []


def test_missing_covisible_masks_are_made_and_kept(
    make_run: MakeRun, config: RunConfig, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(2)
    document = read_transforms(run.capture)
    save(run.capture / "seen.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    document["frames"][-1]["covisible_path"] = "seen.png"
    write_transforms(run.capture, document)
    evaluate_run(run, by(config, "dycheck"), reporter)
    scored = read_json(run.metrics_file)
    made = sorted((run.evaluation / "covisible").glob("*.png"))
    assert [path.name for path in made] == ["0000_test_0.png"]
    assert any("1 covisible masks were missing" in text and "DIS flow" in text for text in scored["deviations"])
    assert scored["views"][1]["covisible"]["psnr"] == scored["views"][1]["psnr"]
    before = sha256_file(made[0])

    def never(*_: object) -> np.ndarray:
        raise AssertionError("the mask is there already")

    with monkeypatch.context() as patch:
        patch.setattr("dpdy_core.output.covisibility.covisible", never)
        evaluate_run(run, by(config, "dycheck"), reporter)
        assert sha256_file(made[0]) == before
        picture = cv2.imread(str(run.capture / "images" / "train_2.png"))
        save(run.capture / "images" / "train_2.png", 255 - picture)
        with pytest.raises(AssertionError, match="already"):
            evaluate_run(run, by(config, "dycheck"), reporter)
    assert read_json(run.metrics_file) == scored, "a failed evaluation leaves the one before"
    assert "covisible_path" not in read_transforms(run.capture)["frames"][-2], "the capture stays as it was"


def test_covisible_is_what_enough_frames_saw() -> None:
    """A textured picture, shifted by whole pixels: what six or more of twelve frames show counts, the rest does not."""
    rng = np.random.default_rng(1)
    wall = cv2.GaussianBlur(rng.integers(0, 256, (80, 200), dtype=np.uint8), (0, 0), 5.0)
    wall = cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX)
    image, shifted = (np.ascontiguousarray(wall[:, start : start + 100]) for start in (50, 62))
    frames, valid = [image] * 5 + [shifted] * 7, np.ones((12, 80, 100), bool)
    mask = covisible(image, frames, valid)
    assert mask[:, 24:].mean() > 0.9, "twelve frames show the right part"
    assert mask[:, :10].mean() < 0.05, "five frames show the left edge"
    valid[:8, 40:] = False
    assert covisible(image, frames, valid)[46:].mean() < 0.05, "excluded pixels of a frame see nothing"


def test_scores_say_what_they_were_made_of_and_are_the_same_bytes_again(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(2)
    run.mark_done("ingest", "abc", input_hash="f00d")
    for protocol in ("plain", "dycheck", "nvidia"):
        evaluate_run(run, by(config, protocol), reporter)
        first = {path.relative_to(run.root): sha256_file(path) for path in files(run.evaluation)}
        evaluate_run(run, by(config, protocol), reporter)
        assert {path.relative_to(run.root): sha256_file(path) for path in files(run.evaluation)} == first
    scored = read_json(run.metrics_file)
    assert (scored["config_hash"], scored["seed"], scored["capture_hash"]) == (config_hash(config), 0, "f00d")
    assert scored["versions"]["torch"] == importlib.metadata.version("torch")
    assert scored["versions"]["dpdy"]
    assert scored["device"]["type"] == "cpu"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
