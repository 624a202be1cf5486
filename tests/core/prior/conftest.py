from pathlib import Path

import cv2
import numpy as np
import pytest

from dpdy_core.config import PriorConfig, RunConfig
from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.tiny import build_toy
from dpdy_core.rundir import RunDir, write_json


@pytest.fixture
def toy() -> Ldm3d:
    return build_toy().frozen()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "toy"
    build_toy().save(folder)
    return folder


@pytest.fixture
def completing() -> Ldm3d:
    """A toy with room for a picture to complete, whose weights there are not zero."""
    return build_toy(completes=True).frozen()


@pytest.fixture(scope="session")
def completing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "completing"
    build_toy(completes=True).save(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose canonical capture has three 48 x 40 frames, the last without depth."""
    run = RunDir(tmp_path / "run")
    frames = []
    rng = np.random.default_rng(0)
    for folder in ("images", "depth"):
        (run.capture / folder).mkdir(parents=True)
    for i in range(3):
        image = np.full((40, 48, 3), (200, 60, 30), np.uint8)
        image[10:30, 8 + 6 * i : 24 + 6 * i] = (20, 90, 220)
        image += rng.integers(0, 8, image.shape, dtype=np.uint8)
        depth = np.full((40, 48), 4000, np.uint16)
        depth[10:30, 8 + 6 * i : 24 + 6 * i] = 2000
        depth[:4] = 0
        cv2.imwrite(str(run.capture / f"images/{i}.png"), image)
        cv2.imwrite(str(run.capture / f"depth/{i}.png"), depth)
        frame = {"file_path": f"images/{i}.png", "time": i / 2, "transform_matrix": np.eye(4).tolist()}
        frames.append(frame | ({"depth_file_path": f"depth/{i}.png"} if i < 2 else {}))
    document = {"w": 48, "h": 40, "fl_x": 40, "fl_y": 40, "cx": 24, "cy": 20, "frames": frames}
    document |= {"train_filenames": [f["file_path"] for f in frames], "val_filenames": [], "test_filenames": []}
    write_json(run.transforms_file, document)
    return run


@pytest.fixture
def settings(toy_folder: Path) -> RunConfig:
    prior = PriorConfig(
        model=str(toy_folder),
        finetune="lora",
        steps=8,
        batch_size=2,
        learning_rate=1e-2,
        rank=2,
        resolution=32,
        class_images=3,
        sampling_steps=2,
        validation_samples=1,
    )
    return RunConfig(device="cpu", prior=prior)
