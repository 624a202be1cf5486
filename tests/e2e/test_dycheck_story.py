"""A DyCheck sequence through the whole method to the scores of its own protocol, and to a benchmark."""

import json
import shutil
from pathlib import Path

import pytest

from dpdy_core.ingest.clip import load_clip, read_transforms
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, read_json, sha256_file
from dpdy_core.synth.capture import make_capture
from tests.dycheck_writer import FACTOR, SCALE, write_dycheck
from tests.e2e.engine import TINY, here, set_options

OWN = {
    "prior.steps": 1,
    "prior.class_images": 1,
    "prior.sampling_steps": 1,
    "prior.validation_samples": 0,
    "scene.steps": 10,
    "scene.max_size": 16,
    "render.paths": ["test"],
    "evaluate.protocol": "dycheck",
}


def evaluation(run: RunDir) -> dict[str, str]:
    files = [path for path in run.evaluation.rglob("*") if path.is_file()]
    return {path.relative_to(run.root).as_posix(): sha256_file(path) for path in [*files, run.report_file]}


@pytest.mark.slow
def test_a_sequence_is_read_trained_rendered_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_capture(tmp_path / "capture", "rigid", 7, 24, 32, 0, Reporter())
    sequence = write_dycheck(tmp_path / "apple", tmp_path / "capture")
    run = RunDir(tmp_path / "run")
    assert here("run", sequence, "--out", run.root, "--preset", "smoke", *set_options(TINY | OWN)) == 0

    document = read_transforms(run.capture)
    assert (document["dycheck"]["factor"], document["dycheck"]["scene_scale"]) == (FACTOR, SCALE)
    assert (run.renders / "test.mp4").is_file()
    clip = load_clip(run.capture, "train", 64)
    assert clip is not None
    assert clip.depth is not None
    assert not clip.valid.all()
    metrics = read_json(run.metrics_file)
    assert (metrics["protocol"], metrics["resolution"], metrics["deviations"]) == ("dycheck", [24, 32], [])
    assert [Path(view["image"]).stem for view in metrics["views"]] == [
        "1_00000",
        "2_00000",
        "1_00003",
        "2_00003",
        "1_00006",
    ]
    for measure in ("psnr", "ssim", "flip"):
        assert all(view["covisible"][measure] is not None for view in metrics["views"])
        assert metrics["mean"]["covisible"][measure] is not None

    assert 0 <= metrics["pck_t"] <= 1
    assert any("4 of 4 annotated frames" in note for note in metrics["notes"])

    made = evaluation(run)
    for _ in range(2):
        capsys.readouterr()
        assert here("eval", run.root, "--json") == 0
        assert json.loads(capsys.readouterr().out) == metrics
        assert evaluation(run) == made, "scoring again changes no byte"

    (tmp_path / "scenes.txt").write_text("run\n")
    assert here("eval", "--scenes", tmp_path / "scenes.txt", "--out", tmp_path / "tables") == 0
    assert "T-NeRF" in (tmp_path / "tables/benchmark.tex").read_text()
    row = next(r for r in (tmp_path / "tables/benchmark.md").read_text().splitlines() if r.startswith("| apple |"))
    assert f"| 5 | 24x32 | {metrics['mean']['covisible']['psnr']:.2f} |" in row

    moved = RunDir(tmp_path / "moved")
    run.root.rename(moved.root)
    shutil.rmtree(sequence)
    assert here("eval", moved.root, "--protocol", "plain") == 0
    plain = read_json(moved.metrics_file)
    assert plain["pck_t"] is None
    assert (plain["protocol"], plain["resolution"]) == ("plain", [12, 16])
    made_of = ("config_hash", "capture_hash", "seed", "versions", "device")
    assert [plain[key] for key in made_of] == [metrics[key] for key in made_of]
    assert metrics["capture_hash"]
