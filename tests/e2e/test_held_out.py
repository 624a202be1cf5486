"""What held-out images show reaches no artefact of training: not one bit of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpdy_core.cli import prepare_run
from dpdy_core.ingest.clip import read_transforms, training_part
from dpdy_core.presets import resolve
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, read_json, sha256_file
from dpdy_core.synth.capture import make_capture
from tests.dycheck_writer import write_dycheck
from tests.e2e.engine import here

SMALLEST: dict[str, object] = {
    "masks.max_size": 64,
    "depth.max_size": 64,
    "prior.steps": 1,
    "prior.batch_size": 1,
    "prior.class_images": 1,
    "prior.sampling_steps": 1,
    "prior.validation_samples": 0,
    "scene.steps": 6,
    "scene.rays": 64,
    "scene.max_size": 32,
    "scene.sds.begin": 0.3,
    "scene.sds.every": 1,
    "scene.checkpoint_seconds": 1e6,  # checkpoints by the clock would differ
    "render.paths": ["stabilised"],
    "render.seconds": 0.3,
}
OF_THE_INPUT = ("config.json", "events.jsonl", "manifest.json", "report.html", "capture/report.json", "stages/")
CAPTURE = {"capture"}
ALL = {"capture", "prior", "scene", "renders"}


def dycheck(folder: Path) -> Path:
    """A sequence with splits, cameras, depth and covisible masks."""
    make_capture(folder / "made", "rigid", 6, 24, 32, 0, Reporter())
    return write_dycheck(folder / "capture", folder / "made")


def nerfstudio(folder: Path) -> Path:
    """A capture with splits and cameras, whose masks and depth have to be estimated."""
    make_capture(folder / "capture", "rigid", 6, 64, 48, 0, Reporter())
    document = json.loads((folder / "capture/transforms.json").read_text())
    for frame in document["frames"]:
        del frame["depth_file_path"], frame["motion_mask_path"]
    (folder / "capture/transforms.json").write_text(json.dumps(document))
    return folder / "capture"


def frames(folder: Path) -> Path:
    """Frames alone: the split, the choice of frames and the cameras are found by the run."""
    make_capture(folder / "made", "rigid", 24, 128, 96, 0, Reporter())
    (folder / "capture").mkdir()
    for i in range(24):
        shutil.copy(folder / f"made/images/train_{i:03d}.png", folder / f"capture/{i:03d}.png")
    return folder / "capture"


def spoil(capture: Path, stems: set[str]) -> int:
    """Plant a marker in every image of these frames: noise and black from top to bottom. How many were changed."""
    changed = 0
    for path in capture.rglob("*.png"):
        if path.stem in stems and not {"depth", "covisible", "motion_masks"} & set(path.parts):
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            width = picture.shape[1] // 6
            noise = np.random.default_rng(changed).integers(0, 256, picture[:, :width, :3].shape)
            picture[:, :width, :3], picture[:, width : 2 * width, :3] = noise, 0
            assert cv2.imwrite(str(path), picture)
            changed += 1
    return changed


def trained(capture: Path, out: Path, until: str = "render") -> RunDir:
    prepare_run(RunDir(out), capture, resolve("smoke", {**SMALLEST, "device": "cpu"}))
    assert here("run", out, "--until", until) == 0
    return RunDir(out)


def artefacts(run: RunDir, held_out: set[str]) -> dict[str, str]:
    """The hash of every file but those that are the input, name its hash, speak of it as a whole, or score it."""
    return {
        name: sha256_file(path)
        for path in run.root.rglob("*")
        if path.is_file()
        and not (name := path.relative_to(run.root).as_posix()).startswith((*OF_THE_INPUT, "evaluation/", "."))
        and not (name.startswith("capture/") and path.stem in held_out)
        and not (name.startswith("renders/") and path.suffix == ".json")
        and name != "capture/transforms.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "until", "kinds"),
    [(dycheck, "evaluate", ALL), (nerfstudio, "render", ALL), (frames, "depth", CAPTURE)],
    ids=["dycheck", "nerfstudio", "frames"],
)
def test_a_marker_in_held_out_images_changes_nothing_that_is_trained(
    tmp_path: Path, make: Callable[[Path], Path], until: str, kinds: set[str]
) -> None:
    capture = make(tmp_path)
    clean = trained(capture, tmp_path / "clean", until)
    document = read_transforms(clean.capture)
    held_out = {Path(name).stem for name in document["test_filenames"]}
    assert spoil(capture, held_out) >= len(held_out) > 0
    marked = trained(capture, tmp_path / "marked", until)

    assert training_part(read_transforms(marked.capture)) == training_part(document)
    files = artefacts(clean, held_out)
    assert artefacts(marked, held_out) == files
    assert {name.split("/")[0] for name in files} == kinds
    assert kinds == CAPTURE or any(n.startswith("prior/") and n.endswith(".safetensors") for n in files)
    if until == "evaluate":
        scores = [read_json(run.metrics_file)["mean"]["psnr"] for run in (clean, marked)]
        assert scores[0] != scores[1], "the marker was seen where it should be"


def test_a_marker_in_training_images_is_seen(tmp_path: Path) -> None:
    """The comparison can fail: the same marker in one training frame changes depth."""
    capture = nerfstudio(tmp_path)
    clean = trained(capture, tmp_path / "clean", "depth")
    first = Path(read_transforms(clean.capture)["train_filenames"][2]).stem
    assert spoil(capture, {first}) == 1
    before, after = (artefacts(run, {first}) for run in (clean, trained(capture, tmp_path / "marked", "depth")))
    changed = {name.split("/")[1] for name in before if after.get(name) != before[name]}
    assert "depth" in changed
