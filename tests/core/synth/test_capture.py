"""Captures: exact depth, cameras and masks, held-out views, determinism, and how they fail."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from dpdy_core.errors import BadSettings, Cancelled
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip, load_clip
from dpdy_core.progress import Event, Reporter
from dpdy_core.rundir import sha256_file
from dpdy_core.synth.capture import TARGET, make_capture
from dpdy_core.synth.covisibility import carried
from dpdy_core.synth.raytrace import PieceList, trace
from dpdy_core.synth.scenes import SCENES, build_scene
from dpdy_core.synth.shading import draw
from dpdy_core.synth.world import World

FRAMES, WIDTH, HEIGHT, SEED = 7, 64, 48, 5


def clip_of(folder: Path, split: str) -> Clip:
    clip = load_clip(folder, split, 4096)  # type: ignore[arg-type]
    assert clip is not None
    return clip


@pytest.fixture(scope="module", params=SCENES)
def scene(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def capture(scene: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(scene) / "capture"
    make_capture(out, scene, FRAMES, WIDTH, HEIGHT, SEED, Reporter())
    return out


def lift(clip: Clip, frame: int) -> Tensor:
    """(H * W, 3) world points of the pixels of a frame."""
    assert clip.depth is not None
    origin, direction = clip.cameras.image_rays(frame)
    return (origin + clip.depth[frame, ..., None] * direction).reshape(-1, 3)


def depth_towards(world: World, cameras: Cameras, frame: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Planar depth of `points` (N, 3) from a frame's camera, and of what that camera sees in their directions."""
    pixels, z = cameras.project(points, torch.full((len(points),), frame))
    origins, directions = cameras.rays(torch.full((len(points),), frame), pixels)
    hits = trace(PieceList(world[frame : frame + 1]), origins[:1], directions.T[None])
    return z, hits.depth


def test_capture_loads_as_a_clip(capture: Path) -> None:
    train, test = clip_of(capture, "train"), clip_of(capture, "test")
    assert load_clip(capture, "val", 4096) is None
    assert len(train) == FRAMES
    assert len(test) == 2 * 3
    assert torch.allclose(train.times, torch.linspace(0, 1, FRAMES))
    assert set(test.times.tolist()) == {train.times[i].item() for i in (0, 3, 6)}
    for clip in (train, test):
        assert clip.images.shape == (len(clip), HEIGHT, WIDTH, 3)
        assert clip.depth is not None
        assert clip.motion is not None
        assert clip.depth.min() > 0.5
        assert clip.depth.max() < 8
        assert 40 < clip.images.float().mean() < 215
        assert clip.images.float().flatten(1).std(1).min() > 25
        assert 0.01 < clip.motion.float().mean() < 0.5
    assert train.covisible is None
    assert test.covisible is not None
    assert 0.4 < test.covisible.float().mean() < 0.97
    document = json.loads((capture / "transforms.json").read_text())
    assert document["depth_kind"] == "metric"
    assert all((capture / value).is_file() for f in document["frames"] for k, value in f.items() if "path" in k)


def test_static_pixels_of_one_frame_have_the_depth_of_the_others(capture: Path, scene: str) -> None:
    train = clip_of(capture, "train")
    world = build_scene(scene, SEED).at(train.times)
    assert train.motion is not None
    static = ~train.motion[0].flatten()
    points = lift(train, 0)[static]
    for other in (2, 6):
        z, seen = depth_towards(world, train.cameras, other, points)
        # files hold whole millimetres: a lifted point may lie that far within its surface
        assert (seen - z < 5e-3 * z).float().mean() > 0.995  # the rest are rays past an edge
        same = (seen - z).abs() < 5e-3 * z
        assert same.float().mean() > 0.75  # the rest is hidden there
        assert (seen - z)[same].abs().median() < 1e-3


def test_motion_masks_are_the_pixels_of_what_moves(capture: Path, scene: str) -> None:
    train = clip_of(capture, "train")
    built = build_scene(scene, SEED)
    world = built.at(train.times)
    moved = (world.pieces.position - world.pieces.position[:1]).norm(dim=-1).amax(0) > 1e-6
    moved |= (world.pieces.rotation - world.pieces.rotation[:1]).abs().flatten(2).amax(-1).amax(0) > 1e-6
    assert torch.equal(moved | ~built.moving[world.pieces.owner[0]], torch.ones_like(moved)), (
        "a mover has a still piece"
    )
    assert torch.equal(moved, built.moving[world.pieces.owner[0]])
    # without the movers the static pixels stay, and what is behind the others is farther
    shape = torch.where(moved, -1, world.pieces.shape)
    empty = World(type(world.pieces)(shape, *world.pieces.fields()[1:]), world.materials, world.light)
    behind = draw(empty, train.cameras).depth[:, 0]
    assert train.depth is not None
    assert train.motion is not None
    torch.testing.assert_close(behind[~train.motion], train.depth[~train.motion], atol=6e-4, rtol=0)
    assert ((behind - train.depth)[train.motion] > 1e-3).float().mean() > 0.99


def test_covisible_agrees_with_rays_to_every_training_frame(capture: Path, scene: str) -> None:
    train, test = clip_of(capture, "train"), clip_of(capture, "test")
    assert test.covisible is not None
    built = build_scene(scene, SEED)
    for view in (0, 5):
        world = built.at(torch.cat([test.times[view : view + 1], train.times]))
        place = draw(world[:1], test.cameras[[view]], 0.01).place[0].flatten()
        points = carried(world.pieces, 0, torch.arange(1, FRAMES + 1), place, lift(test, view))
        count = torch.zeros(len(place))
        for frame in range(FRAMES):
            pixels, _ = train.cameras.project(points[frame], torch.full((len(place),), frame))
            inside = (pixels >= 0).all(1) & (pixels[:, 0] < WIDTH) & (pixels[:, 1] < HEIGHT)
            z, seen = depth_towards(world[1:], train.cameras, frame, points[frame])
            count += inside & (seen > 0.995 * z)
        expected = (count >= 3).view(HEIGHT, WIDTH)
        assert (expected == test.covisible[view]).float().mean() > 0.985


def test_cameras_go_on_an_arc_with_held_out_ones_beside_it(capture: Path, scene: str) -> None:
    train, test = clip_of(capture, "train"), clip_of(capture, "test")
    target = torch.tensor(TARGET)
    to_train, to_test = (torch.nn.functional.normalize(c.cameras.centres - target, dim=1) for c in (train, test))
    spread = torch.rad2deg((to_train @ to_train.T).clamp(-1, 1).acos()).max()
    assert spread < 4 if scene == "static-camera" else 25 < spread < 32
    nearest = torch.rad2deg((to_test @ to_train.T).clamp(-1, 1).acos()).amin(1)
    assert 15 <= nearest.min() <= nearest.max() <= 30
    for clip in (train, test):
        pixels, depth = clip.cameras.project(target.expand(len(clip), 3), torch.arange(len(clip)))
        torch.testing.assert_close(pixels, clip.cameras.principal, atol=1e-3, rtol=0)
        assert (depth > 1).all()


def test_the_video_holds_the_training_frames(capture: Path) -> None:
    train = clip_of(capture, "train")
    with av.open(str(capture / "rgb.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == FRAMES
    assert np.abs(np.stack(decoded).astype(float) - train.images.numpy()).mean() < 12


def files_of(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path: Path) -> None:
    events: list[Event] = []
    for name, seed in (("first", 2), ("again", 2), ("other", 3)):
        make_capture(tmp_path / name, "rigid", 3, 33, 25, seed, Reporter(events.append))
    first, again, other = (files_of(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert first["images/train_000.png"] != other["images/train_000.png"]
    assert first["motion_masks/train_000.png"] != ""
    assert [e["event"] for e in events].count("done") == 3
    assert {e["stage"] for e in events} == {"synth"}
    assert cv2.imread(str(tmp_path / "first/depth/train_000.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scene": "ocean"}, "rigid"),
        ({"frames": 1}, "at least 2"),
        ({"width": 4}, "16 to 4096"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_impossible_captures_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    arguments: dict[str, object] = {"scene": "rigid", "frames": 3, "width": 32, "height": 24, "seed": 0} | change
    with pytest.raises(BadSettings) as caught:
        make_capture(tmp_path / "out", reporter=Reporter(), **arguments)  # type: ignore[arg-type]
    assert said in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadSettings, match="not an empty folder"):
        make_capture(tmp_path, "rigid", 3, 32, 24, 0, Reporter())
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_stopped_capture_leaves_nothing(tmp_path: Path) -> None:
    reporter = Reporter(lambda event: reporter.request_stop() if event["event"] == "step" else None, interval=0)
    with pytest.raises(Cancelled):
        make_capture(tmp_path / "out", "rigid", 3, 32, 24, 0, reporter)
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_on_until_what_is_co_visible_is_known(tmp_path: Path) -> None:
    steps = []
    reporter = Reporter(lambda event: steps.append(event) if event["event"] == "step" else None, interval=0)
    make_capture(tmp_path / "out", "rigid", 12, 32, 24, 0, reporter)
    written = 12 + 8  # two held-out cameras at four times
    assert [event["step"] for event in steps] == [*range(1, written + 1), *range(written + 2, written + 17, 2)]
    assert {event["total"] for event in steps} == {written + 16}
