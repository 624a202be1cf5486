from dataclasses import replace

import pytest
import torch
from optimise_scenes import tiny_config, write_capture

from dpdy_core.ingest.clip import Clip, load_clip, read_transforms, write_transforms
from dpdy_core.optimise import loop
from dpdy_core.optimise.depth_fill import without_holes
from dpdy_core.optimise.loop import optimise_scene
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return write_capture(tmp_path_factory.mktemp("run"))


@pytest.fixture
def clip(run: RunDir) -> Clip:
    clip = load_clip(run.capture, "train", 24)
    assert clip is not None
    return clip


def test_a_hole_in_a_wall_becomes_wall_and_a_mover_stays_unknown(clip: Clip) -> None:
    depth = torch.full_like(clip.images[..., 0].float(), 2.0)
    motion = torch.zeros_like(depth, dtype=torch.bool)
    depth[:, 4:8, 5:12] = 0
    motion[:, 10:14, 14:18] = True
    depth[:, 10:14, 14:18] = 0
    filled = without_holes(replace(clip, depth=depth, motion=motion)).depth
    assert filled is not None
    torch.testing.assert_close(filled[~motion], torch.full_like(filled[~motion], 2.0))
    assert filled[motion].eq(0).all()


def test_a_hole_between_two_walls_lies_between_them_and_known_depth_stays(clip: Clip) -> None:
    depth = torch.full_like(clip.images[..., 0].float(), 2.0)
    depth[..., 12:] = 4.0
    depth[:, :, 8:16] = 0
    filled = without_holes(replace(clip, depth=depth, motion=None)).depth
    assert filled is not None
    assert torch.equal(filled[depth > 0], depth[depth > 0])
    hole = filled[depth == 0]
    assert hole.min() >= 2.0
    assert hole.max() <= 4.0
    assert hole.std() > 0.2


def test_a_hole_takes_the_depth_of_what_looks_like_it(clip: Clip) -> None:
    """A green wall behind a red box, whose edge has no depth: by place alone it would lie between the two."""
    shape = clip.images[..., 0].shape
    images = torch.tensor([40, 160, 60], dtype=torch.uint8).expand(*shape, 3).clone()
    images[:, :, 12:] = torch.tensor([180, 50, 40], dtype=torch.uint8)
    depth = torch.full(shape, 4.0)
    depth[..., 12:] = 2.0
    true = depth.clone()
    depth[:, :, 11:14] = 0
    filled = without_holes(replace(clip, images=images, depth=depth, motion=None)).depth
    assert filled is not None
    torch.testing.assert_close(filled, true, rtol=1e-3, atol=0)


def test_what_knows_nothing_stays_empty(clip: Clip) -> None:
    nothing = torch.zeros_like(clip.images[..., 0].float())
    assert without_holes(replace(clip, depth=None)).depth is None
    filled = without_holes(replace(clip, depth=nothing, motion=None)).depth
    assert filled is not None
    assert filled.eq(0).all()


@pytest.mark.parametrize(
    ("source", "asked", "filled"), [("sweep", True, True), ("sweep", False, False), ("capture", True, False)]
)
def test_the_scene_fills_swept_depth_alone(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, source: str, asked: bool, filled: bool
) -> None:
    """A capture's own depth says where it knows nothing, the sky for one."""
    write_transforms(run.capture, read_transforms(run.capture) | {"depth_source": source})
    seen: list[Clip] = []

    def watched(clip: Clip) -> Clip:
        seen.append(clip)
        return clip

    monkeypatch.setattr(loop, "without_holes", watched)
    optimise_scene(run, tiny_config(steps=1, fill_depth=asked), Reporter())
    assert len(seen) == filled
