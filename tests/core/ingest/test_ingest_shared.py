"""The stages on rendered clips with true masks and depth that lie beside the project."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import read_depth, read_mask, read_transforms
from dpdy_core.ingest.depth import estimate_depth
from dpdy_core.ingest.masks import estimate_masks
from dpdy_core.presets import resolve
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, read_json

SHARED = Path(__file__).parents[4] / "shared" / "data"
SIZE = (256, 192)


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / "desk").exists(), reason="needs ../shared/data/desk, which is not part of the project"
)
def test_masks_and_swept_depth_of_the_desk(tmp_path: Path) -> None:
    run, desk = RunDir(tmp_path), SHARED / "desk"
    config = resolve("smoke", {"masks.source": "epipolar", "depth.source": "sweep", "ingest.max_frames": 16})
    run.write_config(config, desk, {})
    for stage in (ingest_capture, estimate_masks, estimate_depth):
        reporter = Reporter()
        reporter.start(stage.__name__)
        stage(run, config, reporter)
    document, truth = read_transforms(run.capture), read_json(desk / "transforms.json")
    true = {Path(f["file_path"]).stem: f for f in truth["frames"]}
    found_masks, true_masks, found_depth, true_depth = [], [], [], []
    for frame in document["frames"]:
        if frame["file_path"] not in document["train_filenames"]:
            continue
        original = true[Path(frame["file_path"]).stem]
        found_masks.append(read_mask(run.capture / frame["motion_mask_path"], SIZE))
        true_masks.append(read_mask(desk / original["motion_mask_path"], SIZE))
        unit = document["depth_unit_scale_factor"]
        found_depth.append(read_depth(run.capture / frame["depth_file_path"], unit, SIZE))
        true_depth.append(read_depth(desk / original["depth_file_path"], 0.001, SIZE))
    found, movers = np.stack(found_masks), np.stack(true_masks)
    assert (found & movers).sum() / (found | movers).sum() > 0.3
    depth, exact = np.stack(found_depth), np.stack(true_depth)
    known = (depth > 0) & ~movers
    assert known.sum() / (~movers).sum() > 0.6
    assert np.mean(np.abs(depth - exact)[known] / exact[known]) < 0.04
    assert (
        cv2.imread(str(run.capture / document["frames"][0]["depth_file_path"]), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    )
