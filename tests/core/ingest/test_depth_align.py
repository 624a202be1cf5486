from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from textured_room import SIZE, Room, sideways, write_room
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from dpdy_core.errors import BadInput, BadSettings, JobFailed
from dpdy_core.ingest.clip import load_clip, read_depth, read_transforms, write_transforms
from dpdy_core.ingest.depth import estimate_depth
from dpdy_core.ingest.monocular import DepthModel

STILL = [sideways(3, 1.0)[1]] * 6


def _run(room: Room) -> dict[str, np.ndarray]:
    """The stage's depth of each frame that has one."""
    room.reporter.start("depth")
    estimate_depth(room.run, room.config, room.reporter)
    document = read_transforms(room.run.capture)
    assert "depth_file_path" not in {
        k for f in document["frames"] if f["file_path"] in document["test_filenames"] for k in f
    }
    return {
        f["file_path"]: read_depth(room.run.capture / f["depth_file_path"], document["depth_unit_scale_factor"], SIZE)
        for f in document["frames"]
        if "depth_file_path" in f
    }


def _give_depth(room: Room, kind: str, values: dict[str, np.ndarray]) -> None:
    """Store user depth as ingest does, in 16 bits of one unit."""
    document = read_transforms(room.run.capture)
    unit = max(v.max() for v in values.values()) / 65535
    (room.run.capture / "user_depth").mkdir()
    for frame in document["frames"]:
        if frame["file_path"] in values:
            frame["user_depth_file_path"] = f"user_depth/{Path(frame['file_path']).stem}.png"
            raw = np.rint(values[frame["file_path"]] / unit).astype(np.uint16)
            cv2.imwrite(str(room.run.capture / frame["user_depth_file_path"]), raw)
    write_transforms(room.run.capture, document | {"user_depth_unit_scale_factor": float(unit), "depth_kind": kind})


def _error(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """Median relative error where there is depth."""
    f, t = np.stack(list(found.values())), np.stack([truth[name] for name in found])
    return float(np.median(np.abs(f - t)[f > 0] / t[f > 0]))


def _room_with_a_mover(folder: Path, standing: bool) -> Room:
    """Without depth, with true motion masks."""
    room = write_room(folder, sideways(8, 1.0), mover=True, tests=(2,))
    depth = room.config.depth.model_copy(update={"standing": standing})
    room = replace(room, config=room.config.model_copy(update={"depth": depth}))
    document = read_transforms(room.run.capture)
    (room.run.capture / "motion_masks").mkdir()
    for frame in document["frames"]:
        frame["motion_mask_path"] = f"motion_masks/{Path(frame['file_path']).stem}.png"
        mask = room.moving[frame["file_path"]].astype(np.uint8) * 255
        cv2.imwrite(str(room.run.capture / frame["motion_mask_path"]), mask)
    write_transforms(room.run.capture, document)
    return room


def test_the_sweep_finds_static_depth_in_the_cameras_scale(tmp_path: Path) -> None:
    room = _room_with_a_mover(tmp_path, standing=False)
    found = _run(room)
    assert sorted(found) == room.document["train_filenames"]
    assert _error(found, room.depth) < 0.02
    stacked, truth = np.stack(list(found.values())), np.stack([room.depth[n] for n in found])
    moving = np.stack([room.moving[n] for n in found])
    assert (stacked[~moving] > 0).mean() > 0.6
    assert (stacked[moving] > 0).mean() < 0.05, "what moves gets no depth"
    off = np.abs(stacked - truth)[stacked > 0] / truth[stacked > 0]
    assert (off < 0.25).mean() > 0.97
    clip = load_clip(room.run.capture, "train", 160)
    assert clip is not None
    assert clip.depth is not None
    assert read_transforms(room.run.capture)["depth_kind"] == "metric"


def test_guesses_for_movers_are_counted_and_leave_the_rest_as_it_was(tmp_path: Path) -> None:
    measured, guessed = (_room_with_a_mover(tmp_path / str(standing), standing) for standing in (False, True))
    without, found = _run(measured), _run(guessed)
    moving = np.stack([guessed.moving[name] for name in found])
    one, two = np.stack(list(without.values())), np.stack(list(found.values()))
    np.testing.assert_allclose(one[one > 0], two[one > 0], atol=1e-3)  # the unit of the 16 bits may differ
    new = (two > 0) & (one == 0)
    assert new.any()
    assert moving[new].all()
    numbers = [e["numbers"] for e in guessed.events if e["event"] == "step" and "pixels_guessed" in e["numbers"]]
    assert numbers[-1]["pixels_guessed"] == pytest.approx(new.mean(), abs=0.01)


def test_metric_depth_that_agrees_is_kept_as_it_is(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8))
    _give_depth(room, "metric", room.depth)
    found = _run(room)
    assert _error(found, room.depth) < 1e-3
    assert not room.said("warning")


def test_metric_depth_in_another_unit_is_scaled_with_a_warning(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8))
    _give_depth(room, "metric", {name: depth * 3.28 for name, depth in room.depth.items()})
    found = _run(room)
    assert _error(found, room.depth) < 0.02
    assert any("disagrees with its cameras" in message for message in room.said("warning"))


@pytest.mark.parametrize("kind", ["relative_depth", "relative_disparity"])
def test_relative_depth_is_aligned_once_for_the_clip(tmp_path: Path, kind: str) -> None:
    room = write_room(tmp_path, sideways(8, 1.0), mover=True, tests=(5,))
    generator = np.random.default_rng(0)
    values = {}
    for name, depth in room.depth.items():
        if name == "images/005.png":
            continue
        flicker = 1 + 0.05 * generator.standard_normal()
        values[name] = (depth - 0.3) / 2 * flicker if kind == "relative_depth" else (1 / depth - 0.1) / 3 * flicker
    _give_depth(room, kind, values)
    found = _run(room)
    assert _error(found, room.depth) < 0.03
    medians = [np.median(found[name] / room.depth[name]) for name in found]
    assert np.ptp(medians) < 0.06, "one scale for the clip"
    numbers = [e["numbers"] for e in room.events if e["event"] == "step" and "depth_residual" in e["numbers"]]
    assert numbers
    assert numbers[-1]["depth_residual"] < 0.03


def test_running_again_gives_the_same(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8))
    _give_depth(room, "relative_disparity", {name: 1 / depth - 0.1 for name, depth in room.depth.items()})
    one, two = _run(room), _run(room)
    assert all((one[name] == two[name]).all() for name in one)


@pytest.mark.parametrize("kind", ["relative_disparity", None])
def test_a_still_camera_leaves_depth_out_and_says_so(tmp_path: Path, kind: str | None) -> None:
    room = write_room(tmp_path, STILL)
    if kind:
        _give_depth(room, kind, {name: 1 / depth for name, depth in room.depth.items()})
    assert _run(room) == {}
    assert any("parallax" in message for message in room.said("fallback"))


def test_metric_depth_of_a_still_camera_is_taken_unchecked(tmp_path: Path) -> None:
    room = write_room(tmp_path, STILL)
    _give_depth(room, "metric", room.depth)
    assert _error(_run(room), room.depth) < 1e-3
    assert any("could not be checked" in message for message in room.said("warning"))


def test_depth_can_be_left_out(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 0.5), settings={"depth.source": "none"})
    _give_depth(room, "metric", room.depth)
    assert _run(room) == {}


def test_frames_without_user_depth_are_said(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8))
    _give_depth(room, "metric", {name: room.depth[name] for name in list(room.depth)[:4]})
    found = _run(room)
    assert [bool((d > 0).any()) for d in found.values()] == [True] * 4 + [False] * 2
    assert "2 of 6 training frames have no depth" in room.said("warning")


def _tiny_model(folder: Path) -> None:
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_indices=[1, 2], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, reassemble_factors=[2, 1], neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8, head_hidden_size=4, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DepthAnythingForDepthEstimation(config)
    model.head.conv3.bias.data.fill_(1.0)  # or the last ReLU is likely to leave nothing
    model.save_pretrained(folder)
    DPTImageProcessor(size={"height": 56, "width": 70}, keep_aspect_ratio=False).save_pretrained(folder)


def test_a_depth_model_that_knows_nothing_is_left_out(tmp_path: Path) -> None:
    _tiny_model(tmp_path / "model")
    settings: dict[str, Any] = {"depth.model": str(tmp_path / "model")}
    room = write_room(tmp_path / "run", sideways(6, 0.8), settings=settings)
    assert _run(room) == {}, "random weights know no depth"
    assert any("does not follow the scene" in message for message in room.said("fallback"))


def test_a_depth_model_is_aligned_to_the_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tiny_model(tmp_path / "model")
    settings: dict[str, Any] = {"depth.model": str(tmp_path / "model")}
    room = write_room(tmp_path / "run", sideways(6, 0.8), settings=settings)
    disparity = [7 / depth - 0.5 for depth in room.depth.values()]
    monkeypatch.setattr(DepthModel, "predict", lambda _self, images, _check: disparity[: len(images)])
    found = _run(room)
    assert len(found) == 6
    assert _error(found, room.depth) < 0.02


def test_a_model_from_a_folder_predicts_at_the_size_of_the_image(tmp_path: Path) -> None:
    _tiny_model(tmp_path)
    model = DepthModel(str(tmp_path), torch.device("cpu"))
    images = [np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 200, np.uint8)]
    one, two = model.predict(images, lambda _done, _total: None)
    assert model.kind == "relative_disparity"
    assert one.shape == two.shape == (48, 64)
    assert np.isfinite(one).all()
    assert not np.array_equal(one, two)


def test_a_missing_depth_model_is_named(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 0.5), settings={"depth.model": str(tmp_path / "nowhere")})
    with pytest.raises(JobFailed, match="nowhere"):
        _run(room)


def test_contradicting_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"depth\.model"):
        _run(write_room(tmp_path / "a", sideways(3, 0.5), settings={"depth.source": "model"}))
    with pytest.raises(BadInput, match="no depth"):
        _run(write_room(tmp_path / "b", sideways(3, 0.5), settings={"depth.source": "capture"}))
