from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from textured_room import FOCAL, SIZE, Room, camera, sideways, write_room

from dpdy_core.errors import BadInput, CamerasFailed, Cancelled
from dpdy_core.geometry.similarity import umeyama
from dpdy_core.ingest.cameras import between, solve_cameras
from dpdy_core.ingest.clip import load_clip, read_transforms, write_transforms
from dpdy_core.ingest.focal import FocalPrior
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.sparse_model import Intrinsics, SparseModel
from dpdy_core.progress import Event, Reporter


def _run(room: Room) -> dict[str, np.ndarray]:
    room.reporter.start("cameras")
    solve_cameras(room.run, room.config, room.reporter)
    document = read_transforms(room.run.capture)
    return {f["file_path"]: np.array(f["transform_matrix"]) for f in document["frames"] if "transform_matrix" in f}


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1))))


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Room, dict[str, np.ndarray]]:
    """A room with a mover and two held-out frames, solved from images alone."""
    room = write_room(tmp_path_factory.mktemp("room"), sideways(10, 2.4), mover=True, tests=(3, 7), given=False)
    (room.run.capture / "motion_masks").mkdir()
    document = read_transforms(room.run.capture)
    for frame in document["frames"]:
        if frame["file_path"] in document["train_filenames"]:
            frame["motion_mask_path"] = f"motion_masks/{Path(frame['file_path']).stem}.png"
            mask = room.moving[frame["file_path"]].astype(np.uint8) * 255
            cv2.imwrite(str(room.run.capture / frame["motion_mask_path"]), mask)
    write_transforms(room.run.capture, document)
    return room, _run(room)


def test_poses_are_found_up_to_a_similarity(solved: tuple[Room, dict[str, np.ndarray]]) -> None:
    room, found = solved
    train = room.document["train_filenames"]
    assert sorted(found) == sorted(room.poses), "held-out frames are placed, too"
    true = np.stack([room.poses[name] for name in train])
    world = umeyama(np.stack([found[name][:3, 3] for name in train]), true[:, :3, 3])
    length = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    for name, pose in found.items():
        moved = world.camera_to_world(pose[None])[0]
        assert np.linalg.norm(moved[:3, 3] - room.poses[name][:3, 3]) < 0.02 * length, name
        # Against the first frame: the spin about an almost straight path is left open by the centres.
        turned = found[train[0]][:3, :3].T @ pose[:3, :3]
        assert _angle(turned, room.poses[train[0]][:3, :3].T @ room.poses[name][:3, :3]) < 1.5, name
    focal = read_transforms(room.run.capture)["fl_x"]
    assert focal == pytest.approx(FOCAL, rel=0.03)


def test_the_world_is_upright_and_of_a_sensible_size(solved: tuple[Room, dict[str, np.ndarray]]) -> None:
    room, found = solved
    up = np.mean([pose[:3, 1] for name, pose in found.items() if name in room.document["train_filenames"]], axis=0)
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, 0, 1], atol=1e-6)
    points = SparsePoints.load(room.run.capture / POINTS_FILE)
    assert np.median(points.depth) == pytest.approx(3.0, rel=1e-3)


def test_sparse_points_have_the_depth_of_their_pixels(solved: tuple[Room, dict[str, np.ndarray]]) -> None:
    room, _ = solved
    points = SparsePoints.load(room.run.capture / POINTS_FILE)
    assert set(points.frames) <= set(room.document["train_filenames"])
    clip = load_clip(room.run.capture, "train", SIZE[0])
    assert clip is not None
    ratios = []
    for i, name in enumerate(clip.names):
        xy, depth = points.seen_by(name)
        stored = points.xyz[points.point[points.frame == points.frames.index(name)]]
        pixels, projected = clip.cameras.project(torch.from_numpy(stored).float(), torch.full((len(xy),), i))
        np.testing.assert_allclose(pixels.numpy(), xy, atol=3)
        np.testing.assert_allclose(projected.numpy(), depth, rtol=1e-3)
        ratios.append(room.depth[name][xy[:, 1].astype(int), xy[:, 0].astype(int)] / depth)
    together = np.concatenate(ratios)
    assert np.median(np.abs(together / np.median(together) - 1)) < 0.02


def test_the_numbers_are_reported_and_nothing_is_left_behind(solved: tuple[Room, dict[str, np.ndarray]]) -> None:
    room, _ = solved
    last = [e for e in room.events if e["event"] == "step"][-1]["numbers"]
    assert last["registered"] == 1
    assert last["reprojection_error_px"] < 1
    assert last["focal_px"] == pytest.approx(FOCAL, rel=0.03)
    assert [p.name for p in room.run.root.iterdir()] == ["capture"]


def test_equal_seeds_give_equal_poses(tmp_path: Path) -> None:
    one = _run(write_room(tmp_path / "a", sideways(5, 1.5), given=False))
    two = _run(write_room(tmp_path / "b", sideways(5, 1.5), given=False))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_a_still_camera_gets_one_pose_and_says_so(tmp_path: Path) -> None:
    room = write_room(tmp_path, [sideways(3, 1.0)[1]] * 6, tests=(2,), given=False)
    found = _run(room)
    assert sorted(found) == sorted(room.poses)
    for pose in found.values():
        np.testing.assert_array_equal(pose, found["images/000.png"])
    document = read_transforms(room.run.capture)
    assert document["camera_motion"] == "static"
    assert document["fl_x"] == pytest.approx(0.85 * SIZE[0])
    assert room.said("fallback") == [document["camera_note"]]
    for part in ("stands still", "assumed focal length (61 degrees", "no parallax"):
        assert part in document["camera_note"]
    assert not (room.run.capture / POINTS_FILE).exists()


def test_a_still_camera_takes_the_focal_length_of_the_tags(tmp_path: Path) -> None:
    room = write_room(tmp_path, [sideways(3, 1.0)[1]] * 6, given=False)
    document = read_transforms(room.run.capture)
    write_transforms(room.run.capture, document | {"focal_35mm": 26.0})
    _run(room)
    document = read_transforms(room.run.capture)
    assert document["fl_x"] == pytest.approx(26 / (0.8 * np.hypot(36, 24)) * SIZE[0], rel=1e-6)
    assert "the file's tags" in document["camera_note"]


def test_a_camera_that_only_turns_gets_rotations(tmp_path: Path) -> None:
    angles = np.radians(np.linspace(-9, 9, 8))
    poses = [camera(np.zeros(3), np.array([np.sin(a), -0.05 * np.cos(3 * a), -np.cos(a)])) for a in angles]
    room = write_room(tmp_path, poses, tests=(3,), given=False)
    found = _run(room)
    assert sorted(found) == sorted(room.poses)
    first = room.document["train_filenames"][0]
    for name, pose in found.items():
        np.testing.assert_allclose(pose[:3, 3], 0, atol=1e-12)
        turned = found[first][:3, :3].T @ pose[:3, :3]
        assert _angle(turned, room.poses[first][:3, :3].T @ room.poses[name][:3, :3]) < 0.3, name
    document = read_transforms(room.run.capture)
    assert document["camera_motion"] == "turning"
    assert document["fl_x"] == pytest.approx(FOCAL, rel=0.03)
    assert document["camera_note"] in room.said("fallback")
    assert room.said("warning") == ["structure from motion with the usual settings placed 0% of the training frames"]


def test_parallax_is_the_angle_between_the_outermost_cameras() -> None:
    poses = {str(i): np.column_stack([np.eye(3), [-float(i), 0, 0]]) for i in range(3)}
    points = np.array([[0.0, 0, 1], [1, 0, 1], [0, 1, 1]])
    seen = {name: (np.arange(3), np.zeros((3, 2))) for name in poses}
    model = SparseModel(poses, Intrinsics(1, 1, 0, 0), points, seen, 0.0, None, Path())
    assert model.parallax() == pytest.approx(90)


def test_a_camera_that_hardly_moves_has_an_uncertain_focal_length(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(8, 0.06), given=False)
    _run(room)
    document = read_transforms(room.run.capture)
    assert document["camera_motion"] == "moving"
    deviation = document["focal_deviation"]
    assert deviation > 0.03
    assert abs(np.log(document["fl_x"] / FOCAL)) < 3 * deviation
    assert any(f"is known to {deviation:.0%} only (one standard deviation)" in m for m in room.said("warning"))


def test_a_camera_that_moves_knows_its_focal_length(solved: tuple[Room, dict[str, np.ndarray]]) -> None:
    room, _ = solved
    deviation = read_transforms(room.run.capture)["focal_deviation"]
    assert 0 < deviation < 0.01
    assert [e for e in room.events if e["event"] == "step"][-1]["numbers"]["focal_deviation"] == pytest.approx(
        deviation, rel=1e-3
    )
    assert not any("focal length" in m for m in room.said("warning"))


def test_a_focal_length_that_the_pictures_hardly_tell_is_weighed_with_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    focal = []
    for name, prior in (("wide", FocalPrior(0.85, 0.1)), ("narrow", FocalPrior(1.1, 0.1))):
        monkeypatch.setattr("dpdy_core.ingest.structure.prior_of", lambda _hint, prior=prior: prior)
        room = write_room(tmp_path / name, sideways(8, 0.06), given=False)
        _run(room)
        focal.append(read_transforms(room.run.capture)["fl_x"] / SIZE[0])
        assert any("weighed with what" in m for m in room.said("warning"))
    assert focal[0] < focal[1] - 0.01


def test_blank_frames_fail_with_their_cause(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 1.0), given=False)
    for name in room.poses:
        cv2.imwrite(str(room.run.capture / name), np.full((SIZE[1], SIZE[0], 3), 128, np.uint8))
    before = read_transforms(room.run.capture)
    with pytest.raises(CamerasFailed, match="few features"):
        _run(room)
    assert read_transforms(room.run.capture) == before


def test_frames_that_do_not_register_are_dropped_with_a_warning(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(7, 1.8), tests=(3,), given=False)
    for name in ("images/001.png", "images/003.png"):
        cv2.imwrite(str(room.run.capture / name), np.full((SIZE[1], SIZE[0], 3), 128, np.uint8))
    found = _run(room)
    document = read_transforms(room.run.capture)
    assert "images/001.png" not in document["train_filenames"]
    assert document["test_filenames"] == []
    assert len(found) == 5
    assert any(m.startswith("1 of 6 train frames") for m in room.said("warning"))
    assert any(m.startswith("1 of 1 test frames") for m in room.said("warning"))


def test_poses_are_interpolated_only_if_asked_and_never_for_held_out_frames(tmp_path: Path) -> None:
    settings = {"cameras.interpolate": True}
    room = write_room(tmp_path, sideways(7, 1.8), tests=(4,), given=False, settings=settings)
    for name in ("images/002.png", "images/004.png"):
        cv2.imwrite(str(room.run.capture / name), np.full((SIZE[1], SIZE[0], 3), 128, np.uint8))
    found = _run(room)
    document = read_transforms(room.run.capture)
    assert document["test_filenames"] == []
    assert len(document["train_filenames"]) == 6
    assert [f["file_path"] for f in document["frames"] if f.get("pose_interpolated")] == ["images/002.png"]
    np.testing.assert_allclose(
        found["images/002.png"][:3, 3], (found["images/001.png"] + found["images/003.png"])[:3, 3] / 2, atol=1e-9
    )
    assert room.said("fallback") == ["1 of 6 training frames have a pose interpolated between their neighbours'"]


def test_the_way_between_two_poses_turns_evenly() -> None:
    one, two = camera(np.zeros(3), np.array([0.0, 0, -1])), camera(np.array([1.0, 2, 3]), np.array([2.0, 2, 2]))
    for share in (0.0, 0.25, 1.0):
        pose = between(one, two, share)
        assert _angle(one, pose) == pytest.approx(share * _angle(one, two), abs=1e-5)
        np.testing.assert_allclose(pose[:3, 3], share * two[:3, 3], atol=1e-12)
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)


def test_given_poses_are_kept_as_they_are(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 1.0), tests=(1,))
    found = _run(room)
    assert found.keys() == room.poses.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], room.poses[name])
    assert not (room.run.capture / POINTS_FILE).exists()


def test_given_poses_in_one_place_are_said_to_cost_depth(tmp_path: Path) -> None:
    room = write_room(tmp_path, [sideways(3, 1.0)[1]] * 4)
    _run(room)
    assert any("stands in one place: there is no parallax" in m for m in room.said("warning"))


def test_held_out_frames_without_given_pose_are_left_out(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 1.0), tests=(1,))
    document = read_transforms(room.run.capture)
    del document["frames"][1]["transform_matrix"]
    write_transforms(room.run.capture, document)
    _run(room)
    assert read_transforms(room.run.capture)["test_filenames"] == []
    assert room.said("warning") == ["1 of 1 test frames have no camera pose and are left out"]


def test_poses_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 1.0), given=False, settings={"cameras.source": "capture"})
    with pytest.raises(BadInput, match="no camera poses"):
        _run(room)


def test_it_stops_when_asked(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 1.5), given=False)

    def stop(event: Event) -> None:
        if event["event"] == "step":
            stopping.request_stop()

    stopping = Reporter(stop, interval=0)
    stopping.start("cameras")
    with pytest.raises(Cancelled):
        solve_cameras(room.run, room.config, stopping)
    assert [p.name for p in room.run.root.iterdir()] == ["capture"]
