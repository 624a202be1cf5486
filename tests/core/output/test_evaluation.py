"""Scores of held-out views on a scene known in closed form."""

import csv
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from analytic_scene import AnalyticScene, render_analytic
from torch import Tensor

from dpdy_core.config import RunConfig
from dpdy_core.errors import JobFailed
from dpdy_core.ingest.clip import load_clip, load_given_depth, read_transforms, write_transforms
from dpdy_core.output.baselines import all_times_warps, nearest_frame
from dpdy_core.output.evaluation import evaluate_run
from dpdy_core.output.metrics import psnr, quantise, ssim
from dpdy_core.output.scores import mean_scores, views_before
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, read_json

MakeRun = Callable[[int], RunDir]
KEYS = {"psnr", "ssim", "ms_ssim", "lpips", "flip", "abs_rel", "rmse", "delta1", "flicker", "sharpness"}
REGIONS = {"covisible", "moving", "unseen", "static"}


@pytest.fixture
def darker(recolour: Callable[[Callable[[Tensor], Tensor]], None]) -> None:
    """The scene renders a tenth too dark, so that its scores have a closed form."""
    recolour(lambda colour: colour * 0.9)


@pytest.mark.usefixtures("darker")
def test_metrics_have_the_contracts_shape_and_true_values(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(3)
    evaluate_run(run, config, reporter)
    metrics = read_json(run.metrics_file)
    assert set(metrics) == {
        *("protocol", "split", "resolution", "views", "mean", "baselines", "pck_t", "truth", "notes", "deviations"),
        *("config_hash", "seed", "capture_hash", "versions", "device"),
    }
    assert (metrics["protocol"], metrics["split"], metrics["resolution"]) == ("plain", "test", [48, 36])
    assert [v["image"] for v in metrics["views"]] == [f"images/test_{i}.png" for i in range(3)]
    assert [v["time"] for v in metrics["views"]] == [0.0, 0.5, 1.0]
    assert set(metrics["views"][0]) == KEYS | REGIONS | {"image", "time"}
    assert set(metrics["mean"]) == KEYS | REGIONS
    test = load_clip(run.capture, "test", 512)
    assert test is not None
    for i, view in enumerate(metrics["views"]):
        truth = quantise(test.colours()[i])
        render = quantise(test.colours()[i] * 0.9)
        assert view["psnr"] == pytest.approx(psnr(render, truth), abs=0.3)  # the truth was quantised before the scaling
        assert view["ssim"] == pytest.approx(ssim(render, truth), abs=0.01)
        assert view["covisible"] == dict.fromkeys(KEYS)
    assert metrics["views"][1]["moving"]["psnr"] == pytest.approx(psnr(render, truth, test.motion[2]), abs=1.0)
    assert metrics["mean"]["psnr"] == pytest.approx(sum(v["psnr"] for v in metrics["views"]) / 3)
    assert metrics["baselines"]["nearest_frame"]["psnr"] < metrics["mean"]["psnr"] - 3
    notes = " ".join(metrics["notes"])
    assert all(word in notes for word in ("lpips", "ms_ssim", "covisible_path"))


@pytest.mark.usefixtures("darker")
def test_csv_and_pictures_follow_the_views(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    run = make_run(2)
    evaluate_run(run, config, reporter)
    with (run.evaluation / "per_view.csv").open() as file:
        rows = list(csv.DictReader(file))
    views = read_json(run.metrics_file)["views"]
    assert [float(r["psnr"]) for r in rows] == [v["psnr"] for v in views]
    assert [r["covisible_psnr"] for r in rows] == ["", ""]
    assert len(list((run.evaluation / "images").glob("*.jpg"))) == 2
    for view in views:
        error = cv2.imread(str(run.evaluation / "images" / f"{views.index(view):04d}_{view['image'][7:-4]}_error.png"))
        assert error.shape == (36, 48, 3)
        assert error.max() > 0


def test_no_test_views_gives_nulls_and_a_note(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    run = make_run(0)
    evaluate_run(run, config, reporter)
    metrics = read_json(run.metrics_file)
    assert metrics["views"] == []
    assert metrics["mean"] == {
        **dict.fromkeys(KEYS),
        **{region: dict.fromkeys(KEYS) for region in REGIONS},
    }
    assert "no test views" in metrics["notes"][0]


def test_test_frames_without_a_pose_are_counted_in_a_note(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(3)
    document = read_transforms(run.capture)
    del document["frames"][-1]["transform_matrix"]
    write_transforms(run.capture, document)
    evaluate_run(run, config, reporter)
    metrics = read_json(run.metrics_file)
    assert len(metrics["views"]) == 2
    assert any("1 of 3 test frames have no camera pose" in note for note in metrics["notes"])


def test_a_perfect_render_has_no_finite_psnr_and_says_so(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(1)
    evaluate_run(run, config, reporter)
    metrics = read_json(run.metrics_file)
    assert metrics["mean"]["psnr"] is None
    assert metrics["mean"]["ssim"] == pytest.approx(1.0)
    assert any("psnr is null where render and truth are equal" in note for note in metrics["notes"])


def test_excluded_pixels_do_not_count(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    """Half of the truth is spoilt and masked out: the score stays perfect in the other half."""
    run = make_run(1)
    document = read_transforms(run.capture)
    frame = document["frames"][-1]
    picture = cv2.imread(str(run.capture / frame["file_path"]))
    picture[:, :24] = 255 - picture[:, :24]
    cv2.imwrite(str(run.capture / frame["file_path"]), picture)
    mask = np.full(picture.shape[:2], 255, np.uint8)
    mask[:, :24] = 0
    cv2.imwrite(str(run.capture / "mask.png"), mask)
    frame["mask_path"] = "mask.png"
    write_transforms(run.capture, document)
    evaluate_run(run, config, reporter)
    view = read_json(run.metrics_file)["views"][0]
    assert view["psnr"] is None  # infinite
    assert view["ssim"] > 0.8  # windows that reach over the border of the mask see the spoilt half


def test_nearest_frame_is_nearest_in_time_then_in_space(make_run: MakeRun) -> None:
    run = make_run(1)
    train = load_clip(run.capture, "train", 512)
    assert train is not None
    for time, wanted in ((0.0, 0), (0.39, 2), (1.0, 5)):
        assert torch.equal(nearest_frame(train, train.cameras, 0, time), train.colours()[wanted])
    train.times.fill_(0.5)
    assert torch.equal(nearest_frame(train, train.cameras, 4, 0.0), train.colours()[4])


@pytest.mark.usefixtures("darker")
def test_regions_depth_and_flicker_have_true_values(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    """The left half is covisible, the true depth has another unit, and what stands still never changes."""
    run = make_run(3)
    document = read_transforms(run.capture)
    half = np.zeros((36, 48), np.uint8)
    half[:, :24] = 255
    cv2.imwrite(str(run.capture / "half.png"), half)
    for frame in document["frames"]:
        if "test" in frame["file_path"]:
            frame |= {"covisible_path": "half.png", "user_depth_file_path": frame["depth_file_path"]}
    write_transforms(run.capture, document | {"user_depth_unit_scale_factor": 0.005, "user_depth_kind": "metric"})
    evaluate_run(run, config, reporter)
    metrics = read_json(run.metrics_file)
    test = load_clip(run.capture, "test", 512)
    assert test is not None
    assert test.motion is not None
    truth = quantise(test.colours()[1])
    view = metrics["views"][1]
    masks = {"covisible": torch.from_numpy(half > 0), "moving": test.motion[1]}
    masks |= {"unseen": ~masks["covisible"], "static": ~masks["moving"]}
    for region, mask in masks.items():
        assert view[region]["psnr"] == pytest.approx(psnr(quantise(truth * 0.9), truth, mask), abs=0.5)
        # a ball of one colour has no gradients to compare
        assert view[region]["sharpness"] == (None if region == "moving" else pytest.approx(0.81, abs=0.02))
        assert view[region]["abs_rel"] == pytest.approx(0, abs=0.001)
    assert metrics["views"][0]["flicker"] is None
    assert (view["flicker"] > 1, view["static"]["flicker"]) == (True, 0)
    assert metrics["truth"]["static"]["flicker"] == 0


def test_given_depth_of_unknown_kind_is_no_truth(make_run: MakeRun) -> None:
    run = make_run(1)
    document = read_transforms(run.capture)
    document["frames"][-1]["user_depth_file_path"] = document["frames"][-1]["depth_file_path"]
    document |= {"user_depth_unit_scale_factor": 0.002, "user_depth_kind": "metric"}
    write_transforms(run.capture, document)
    test, train = load_clip(run.capture, "test", 512), load_clip(run.capture, "train", 512)
    assert test is not None
    assert train is not None
    given = load_given_depth(run.capture, test)
    assert given is not None
    assert torch.allclose(given, 2 * test.depth)
    assert load_given_depth(run.capture, train) is None
    write_transforms(run.capture, document | {"user_depth_kind": "relative_disparity"})
    assert load_given_depth(run.capture, test) is None


def test_views_before_are_those_of_the_same_camera(make_run: MakeRun) -> None:
    run = make_run(1)
    train = load_clip(run.capture, "train", 512)
    assert train is not None
    assert views_before(train.cameras[[0, 1, 0, 2, 1, 0]]) == [None, None, 0, None, 1, 2]


def test_all_times_warp_recovers_what_a_mover_hid(make_run: MakeRun) -> None:
    """The wall behind the ball comes from other times, the ball from its own; the rest is the nearest pixel."""
    run = make_run(6)
    train, test = load_clip(run.capture, "train", 512), load_clip(run.capture, "test", 512)
    assert train is not None
    assert test is not None
    assert test.motion is not None
    cameras = train.cameras[[0] * 6]  # a camera that films at other times than its own
    alone = replace(train, motion=torch.ones_like(train.motion))  # nothing is static: only the same time counts
    for number, (whole, part) in enumerate(
        zip(all_times_warps(train, cameras, train.times), all_times_warps(alone, cameras, train.times), strict=True)
    ):
        truth = render_analytic(AnalyticScene(), cameras, number, float(train.times[number]), 1).colour
        scores = [psnr(quantise(picture), quantise(truth)) for picture in (whole, part)]
        assert scores[0] > 20
        assert number < 3 or scores[0] > scores[1] + 1


def test_mean_leaves_out_views_without_a_value() -> None:
    region = dict.fromkeys(KEYS)
    view = {**region, "psnr": 10.0, "ssim": 0.5, **dict.fromkeys(REGIONS, region)}
    other = {**view, "psnr": None, "moving": {**region, "psnr": 7.0}}
    mean = mean_scores([view, other])
    assert (mean["psnr"], mean["ssim"], mean["ms_ssim"], mean["moving"]["psnr"]) == (10.0, 0.5, None, 7.0)


def test_a_render_that_is_not_finite_is_an_error(
    make_run: MakeRun, config: RunConfig, reporter: Reporter, recolour: Callable[[Callable[[Tensor], Tensor]], None]
) -> None:
    """FLIP gives NaN a plausible number."""
    run = make_run(2)
    recolour(lambda colour: torch.where(colour > 0.5, torch.nan, colour))
    with pytest.raises(JobFailed, match=r"test_0\.png with values that are not finite"):
        evaluate_run(run, config, reporter)
    assert not run.evaluation.exists()
