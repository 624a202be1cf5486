"""Which surfaces the training frames saw: two cameras before a wall, one of which is blocked by a mover."""

import torch

from dpdy_core.config import FieldsConfig, GridConfig, SamplingConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.render.visibility import TrainingViews, complete_depth
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.scene import Scene

GRID = GridConfig(levels=2, log2_table=8, base_resolution=2, max_resolution=4)
SIZE = 16


def scene() -> Scene:
    fields = FieldsConfig(static_grid=GRID, dynamic_grid=GRID, proposal_grid=GRID, hidden=8)
    bounds = Bounds((0.0, 0.0, -1.0), 1.0, 0.2, 20.0)
    return Scene(fields, SamplingConfig(proposal=8, fine=8), bounds, 2, "torch", torch.Generator().manual_seed(0))


def clip(depth: bool = True) -> Clip:
    """Two frames from the origin along -z, half a field of view wide each way, a wall at depth 2.

    In the second frame, at time 1, a mover at depth 1 covers the left half of the image.
    """
    cameras = Cameras(
        torch.eye(4)[None, :3].repeat(2, 1, 1), torch.full((2, 2), SIZE / 2), torch.full((2, 2), SIZE / 2), SIZE, SIZE
    )
    motion = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    motion[1, :, : SIZE // 2] = True
    return Clip(
        names=["0", "1"],
        times=torch.tensor([0.0, 1.0]),
        cameras=cameras,
        images=torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),
        valid=torch.ones(2, SIZE, SIZE, dtype=torch.bool),
        depth=torch.where(motion, 1.0, 2.0) if depth else None,
        motion=motion,
        covisible=None,
    )


def seen(target: tuple[float, float, float], dynamic: float, time: float) -> bool:
    """Whether a point, looked at from the side, counts as seen."""
    origin = torch.tensor([[3.0, 0.0, 0.0]])
    direction = (torch.tensor([target]) - origin) / 4.0
    views = TrainingViews(clip(), scene())
    return bool(views.seen(origin, direction, torch.tensor([4.0]), torch.tensor([dynamic]), time))


def test_the_wall_was_seen_at_any_time() -> None:
    assert seen((-1.0, 0.0, -2.0), dynamic=0.0, time=0.0)
    assert seen((-1.0, 0.0, -2.0), dynamic=0.0, time=1.0)  # hidden then, but the other frame saw it


def test_what_lies_behind_the_wall_was_not_seen() -> None:
    assert not seen((-1.0, 0.0, -3.0), dynamic=0.0, time=0.0)


def test_what_floats_in_free_space_was_not_seen() -> None:
    assert not seen((0.5, 0.0, -1.2), dynamic=0.0, time=0.0)


def test_what_lies_outside_all_views_was_not_seen() -> None:
    assert not seen((-2.5, 0.0, -2.0), dynamic=0.0, time=0.0)


def test_what_lies_behind_the_cameras_was_not_seen() -> None:
    assert not seen((0.0, 0.0, 2.0), dynamic=0.0, time=0.0)


def test_a_mover_was_seen_only_at_its_time() -> None:
    assert seen((-0.5, 0.0, -1.0), dynamic=1.0, time=1.0)
    assert not seen((-0.5, 0.0, -1.0), dynamic=1.0, time=0.0)


def test_a_moving_pixel_is_no_witness_of_a_static_surface() -> None:
    assert not seen((-0.5, 0.0, -1.0), dynamic=0.0, time=1.0)


def test_a_clip_without_depth_gets_the_scene_s_own() -> None:
    views = TrainingViews(clip(depth=False), scene())
    assert views.is_rendered
    assert views.depth.shape == (2, SIZE, SIZE)
    assert (views.depth > 0).all()
    assert not TrainingViews(clip(), scene()).is_rendered


def test_holes_in_the_depth_are_filled_from_the_scene() -> None:
    holed = clip()
    assert holed.depth is not None
    holed.depth[0, :4] = 0
    depth = complete_depth(holed, scene())
    assert (depth > 0).all()
    assert torch.equal(depth[0, 4:], holed.depth[0, 4:])
