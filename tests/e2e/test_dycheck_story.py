"""A DyCheck sequence through the stages to its scores: its own depth is used, its covisible masks are scored."""

from pathlib import Path

import torch

from dpdy_core.ingest.clip import load_clip, read_transforms
from dpdy_core.pipeline import STAGE_FUNCTIONS
from dpdy_core.presets import resolve
from dpdy_core.progress import Event, Reporter
from dpdy_core.rundir import RunDir, read_json
from dpdy_core.synth.capture import make_capture
from tests.dycheck_writer import FACTOR, SCALE, write_dycheck
from tests.e2e.engine import TINY

OWN = {"scene.steps": 10, "scene.max_size": 32, "scene.sds.enabled": False}
LEFT_OUT = ("prior", "render")  # dear, and blind to where the capture came from


def test_a_sequence_becomes_a_scene_with_covisible_scores(tmp_path: Path) -> None:
    make_capture(tmp_path / "capture", "rigid", 6, 24, 32, 0, Reporter())
    sequence = write_dycheck(tmp_path / "apple", tmp_path / "capture")
    run, config = RunDir(tmp_path / "run"), resolve("smoke", TINY | OWN)
    run.write_config(config, sequence, {})
    events: list[Event] = []
    torch.manual_seed(0)
    for name, stage in STAGE_FUNCTIONS:
        if name not in LEFT_OUT:
            reporter = Reporter(events.append)
            reporter.start(name)
            stage(run, config, reporter)
    document = read_transforms(run.capture)
    assert (document["dycheck"]["factor"], document["dycheck"]["scene_scale"]) == (FACTOR, SCALE)
    assert not [event for event in events if event["event"] == "fallback"]
    clip = load_clip(run.capture, "train", 64)
    assert clip is not None
    assert clip.depth is not None
    assert not clip.valid.all()
    metrics = read_json(run.metrics_file)
    assert [Path(view["image"]).stem for view in metrics["views"]] == ["1_00000", "2_00000", "1_00005"]
    for measure in ("psnr", "ssim"):
        assert all(view["covisible"][measure] is not None for view in metrics["views"])
        assert metrics["mean"]["covisible"][measure] is not None
