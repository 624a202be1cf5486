"""The run folder: atomic writes, stage records, fingerprints, the manifest."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpdy_core.config import STAGES, RunConfig
from dpdy_core.errors import BadSettings
from dpdy_core.presets import resolve
from dpdy_core.rundir import RunDir, folder_atomic, read_json, sha256_file, write_atomic, write_json


def broken(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk full")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, broken)
    assert read_json(file) == {"a": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_no_nan(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": value})
    assert not list(tmp_path.iterdir())


def test_a_temporary_keeps_its_suffix(tmp_path: Path) -> None:
    """Writers such as cv2 and av choose the format by it."""
    seen: list[Path] = []
    write_atomic(tmp_path / "a.b.png", lambda path: seen.append(path) or path.touch())  # type: ignore[func-returns-value]
    assert seen[0].suffix == ".png"
    assert seen[0].name.startswith(".")


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with folder_atomic(folder) as partial:
        (partial / "old").touch()
    with pytest.raises(RuntimeError), folder_atomic(folder) as partial:
        raise RuntimeError((partial / "new").touch())
    assert [p.name for p in folder.iterdir()] == ["old"]
    with folder_atomic(folder) as partial:
        (partial / "new").touch()
    assert [p.name for p in folder.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    code = (
        "import sys, os, signal; from pathlib import Path; from dpdy_core.rundir import write_atomic\n"
        "def half(path): path.write_text('ne'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), half)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(file)], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert file.read_text() == "old"


def test_the_config_round_trips_with_its_source(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    config = resolve("smoke", {"seed": 5})
    run.write_config(config, Path("/captures/a.mp4"), {"dpdy": "0"})
    assert run.read_config() == (config, Path("/captures/a.mp4"))
    run.open_config(config)


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_config(resolve("smoke"), Path("a"), {})
    with pytest.raises(BadSettings, match=r"scene\.steps, seed"):
        run.open_config(resolve("smoke", {"seed": 1, "scene.steps": 3}))


def changed(setting: str, value: object) -> dict[str, str]:
    """Fingerprints of all stages with one setting changed."""
    config = resolve("smoke", {setting: value})
    return {stage: RunDir(Path()).fingerprint(stage, config, "input") for stage in STAGES}


@pytest.mark.parametrize(
    ("setting", "value", "first"),
    [
        ("seed", 1, "ingest"),
        ("ingest.max_frames", 9, "ingest"),
        ("depth.planes", 9, "depth"),
        ("scene.sds.enabled", False, "scene"),
        ("render.seconds", 9, "render"),
        ("evaluate.protocol", "dycheck", "evaluate"),
        ("device", "cpu", None),
    ],
)
def test_a_setting_changes_its_stage_and_all_later_ones(setting: str, value: object, first: str | None) -> None:
    before, after = changed("seed", 0), changed(setting, value)
    differing = [stage for stage in STAGES if before[stage] != after[stage]]
    assert differing == (list(STAGES[STAGES.index(first) :]) if first else [])


def test_another_input_changes_every_stage() -> None:
    run, config = RunDir(Path()), RunConfig()
    assert all(run.fingerprint(s, config, "a") != run.fingerprint(s, config, "b") for s in STAGES)


def test_a_stage_is_done_only_for_its_fingerprint(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.stage_record("scene") is None
    assert not run.is_done("scene", "a")
    run.mark_done("scene", "a", seconds=2.5)
    assert run.is_done("scene", "a")
    assert not run.is_done("scene", "b")
    assert run.stage_record("scene") == {"fingerprint": "a", "seconds": 2.5}


def test_the_manifest_lists_every_finished_file(tmp_path: Path) -> None:
    run = RunDir(tmp_path / ".hidden" / "run")
    for name in (
        "capture/depth/a.png",
        "capture/images/a.png",
        "renders/orbit.mp4",
        "report.html",
        "prior/x.safetensors",
    ):
        write_atomic(run.root / name, lambda path: path.write_bytes(b"12345"))
    for name in (".lock", "renders/.orbit.partial.mp4", ".evaluation.x.partial/metrics.json"):
        (run.root / name).parent.mkdir(exist_ok=True)
        (run.root / name).touch()
    entries = {e["path"]: e for e in run.write_manifest(1)}
    assert {path: e["stage"] for path, e in entries.items()} == {
        "capture/depth/a.png": "depth",
        "capture/images/a.png": "ingest",
        "prior/x.safetensors": "prior",
        "renders/orbit.mp4": "render",
        "report.html": None,
    }
    video = entries["renders/orbit.mp4"]
    assert (video["size"], video["sha256"]) == (5, hashlib.sha256(b"12345").hexdigest())
    assert (video["media_type"], entries["report.html"]["media_type"]) == ("video/mp4", "text/html")
    assert json.loads(run.manifest_file.read_text())["files"] == list(entries.values())


def test_a_file_keeps_the_attempt_that_made_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    run.write_manifest(1)
    (tmp_path / "b").write_text("2")
    assert {e["path"]: e["attempt"] for e in run.write_manifest(2)} == {"a": 1, "b": 2}


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_json(run.config_file, {})
    (tmp_path / "renders").mkdir()
    (tmp_path / "renders" / ".orbit.partial.mp4").touch()
    (tmp_path / ".capture.a1.partial").mkdir()
    (tmp_path / ".capture.a1.partial" / "0.png").touch()
    (tmp_path / ".lock").touch()
    run.remove_partials()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        ".lock",
        "config.json",
        "renders",
    ]
