"""Checkpoints: atomic, hashed, the last two kept, the newest valid one loaded."""

import json
from pathlib import Path

import pytest
import torch
from optimise_scenes import tiny_config

from dpdy_core.checkpoint import newest_checkpoint, save_checkpoint
from dpdy_core.errors import JobFailed
from dpdy_core.optimise.checkpoint import load_scene, scene_header
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.scene import Scene


def tiny_scene(seed: int = 0, **fields: bool) -> Scene:
    config = tiny_config().scene
    bounds = Bounds((0.1, 0.2, 0.3), 1.5, 0.2, 9.0)
    chosen = config.fields.model_copy(update=fields)
    return Scene(chosen, config.sampling, bounds, 5, "torch", torch.Generator().manual_seed(seed))


def save(folder: Path, step: int, identity: str = "a") -> None:
    save_checkpoint(folder, step, {"identity": identity}, {"x": torch.full((3,), float(step))})


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 9):
        save(tmp_path, step)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 9
    assert torch.equal(checkpoint.tensors["x"], torch.full((3,), 9.0))
    assert len(list(tmp_path.glob("*.safetensors"))) == len(list(tmp_path.glob("*.json"))) == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_kills_left_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step_0000004.safetensors").write_bytes(b"without a record")
    (tmp_path / ".step_0000005.partial.safetensors").write_bytes(b"half")
    save(tmp_path, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"step_{step:07d}.{suffix}" for step in (1, 7) for suffix in ("json", "safetensors")
    ]


def test_another_versions_checkpoints_are_refused_and_left_alone(tmp_path: Path) -> None:
    for step in (300, 400):
        save(tmp_path, step)
    foreign = tmp_path / "step_0000400.json"
    foreign.write_text(json.dumps(json.loads(foreign.read_text()) | {"format": 2}))
    warnings: list[str] = []
    checkpoint = newest_checkpoint(tmp_path, "a", warnings.append)
    assert checkpoint is not None
    assert checkpoint.step == 300
    assert warnings == ["the checkpoint of step 400 has format 2 of another version, not 1: not used"]
    assert foreign.exists()


def test_later_steps_of_another_history_do_not_push_ours_out(tmp_path: Path) -> None:
    for step in (300, 400):
        save(tmp_path, step, "other")
    save(tmp_path, 5)
    checkpoint = newest_checkpoint(tmp_path, "a")
    assert checkpoint is not None
    assert checkpoint.step == 5
    assert [path.name for path in tmp_path.glob("*.json")] == ["step_0000005.json"]


@pytest.mark.parametrize("damage", ["flip", "cut", "no numbers", "no json", "half json", "foreign json"])
def test_a_damaged_checkpoint_gives_way_to_the_older_one(tmp_path: Path, damage: str) -> None:
    for step in (3, 7):
        save(tmp_path, step)
    numbers, record = tmp_path / "step_0000007.safetensors", tmp_path / "step_0000007.json"
    contents = bytearray(numbers.read_bytes())
    match damage:
        case "flip":
            contents[-1] ^= 1
            numbers.write_bytes(contents)
        case "cut":
            numbers.write_bytes(contents[: len(contents) // 2])
        case "no numbers":
            numbers.unlink()
        case "no json":
            record.unlink()
        case "half json":
            record.write_text(record.read_text()[:20])
        case "foreign json":
            record.write_text("[]")
    warnings: list[str] = []
    checkpoint = newest_checkpoint(tmp_path, warn=warnings.append)
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert len(warnings) == (damage != "no json")


def test_checkpoints_of_another_run_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 3, identity="mine")
    save(tmp_path, 7, identity="other")
    checkpoint = newest_checkpoint(tmp_path, "mine")
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert newest_checkpoint(tmp_path, "nobody's") is None


def test_a_scene_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    scene = tiny_scene(seed=4)
    tensors = {f"scene.{name}": value for name, value in scene.state_dict().items()}
    save_checkpoint(tmp_path, 1, scene_header(scene), tensors)
    loaded = load_scene(tmp_path, "cpu")
    assert loaded.bounds == scene.bounds
    assert loaded.sampling == scene.sampling
    for (name, a), (_, b) in zip(loaded.named_parameters(), scene.named_parameters(), strict=True):
        assert torch.equal(a, b), name
        assert not a.requires_grad
    points = torch.rand(2, 3, 3)
    directions, times = torch.rand(2, 3), torch.rand(2)
    assert torch.equal(
        loaded.sample(points, directions, times).dynamic_colour, scene.sample(points, directions, times).dynamic_colour
    )


def test_a_scene_from_before_planes_axes_and_shadows_comes_back_without_them(tmp_path: Path) -> None:
    scene = tiny_scene(seed=4, static_planes=False, shadows=False)
    tensors = {f"scene.{name}": value for name, value in scene.state_dict().items()}
    header = scene_header(scene)
    for setting in ("static_planes", "shadows"):
        del header["fields"][setting]
    del header["bounds"]["axes"]
    save_checkpoint(tmp_path, 1, header, tensors)
    loaded = load_scene(tmp_path, "cpu")
    points, directions, times = torch.rand(2, 3, 3), torch.rand(2, 3), torch.rand(2)
    for name, value in vars(loaded.sample(points, directions, times)).items():
        assert torch.equal(value, getattr(scene.sample(points, directions, times), name)), name


def test_a_folder_without_checkpoints_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="no valid checkpoint"):
        load_scene(tmp_path / "scene", "cpu")


def test_the_record_is_plain_json_with_the_hash(tmp_path: Path) -> None:
    save(tmp_path, 2)
    record = json.loads((tmp_path / "step_0000002.json").read_text())
    assert set(record) == {"format", "identity", "step", "sha256"}
    assert len(record["sha256"]) == 64
