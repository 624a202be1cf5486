import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_samples import edit, make_images, make_posed, make_run, picture, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import write_capture
from dpdy_core.ingest.clip import read_depth, read_transforms
from dpdy_core.ingest.frames import inside
from dpdy_core.ingest.nerfstudio import read_nerfstudio


def ingest(tmp_path: Path, source: Path, **settings_: Any) -> tuple[Path, dict[str, Any]]:
    run, config = make_run(tmp_path / "run", source, **settings_)
    write_capture(run.root, source, config.ingest.model_dump(), recording()[0])
    return run.capture, read_transforms(run.capture)


def test_everything_given_is_read(tmp_path: Path) -> None:
    capture = read_nerfstudio(make_posed(tmp_path / "c", 5, fps=12))
    assert (capture.kind, len(capture.frames), capture.width, capture.height, capture.fps) == (
        "nerfstudio",
        5,
        64,
        48,
        12,
    )
    frame = capture.frames[2]
    assert frame.time == 0.5
    assert frame.pose is not None
    assert np.allclose(frame.pose[0], [math.cos(0.2), -math.sin(0.2), 0, 0.2])
    assert frame.lens is not None
    assert (frame.lens.fl_x, frame.lens.fl_y, frame.lens.cx, frame.lens.cy) == (50, 52, 31, 25)


def set_frame(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["frames"][index].update(values)


def set_pose(change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        document["frames"][1]["transform_matrix"] = np.array(
            change(np.array(document["frames"][1]["transform_matrix"]))
        ).tolist()

    return apply


def set_lists(**lists: list[int]) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        for split, members in lists.items():
            document[f"{split}_filenames"] = [document["frames"][i]["file_path"] for i in members]

    return apply


BAD_DOCUMENTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("no frames", lambda d: d.update(frames=[]), "no frames"),
    ("frames is a word", lambda d: d.update(frames="all"), "no frames"),
    ("one frame", lambda d: d.update(frames=d["frames"][:1]), "1 training frame"),
    ("no file_path", lambda d: d["frames"][1].pop("file_path"), "frame 1 .* no file_path"),
    ("missing image", set_frame(1, file_path="images/none.png"), "images/none.png.*missing"),
    ("an image twice", set_frame(1, file_path="./images//frame0.png"), "lists 'images/frame0.png' twice"),
    ("absolute path", set_frame(1, file_path="/etc/passwd"), "leaves"),
    ("path upwards", set_frame(1, file_path="../other/frame0.png"), "leaves"),
    ("path upwards inside", set_frame(1, file_path="images/../../c/images/frame1.png"), "leaves"),
    ("drive letter", set_frame(1, file_path="C:\\frame0.png"), "leaves"),
    ("endless name", set_frame(1, file_path="a" * 5000 + ".png"), "cannot be opened"),
    ("NUL in the name", set_frame(1, file_path="a\0.png"), "not the name of a file"),
    ("NaN pose", set_pose(lambda m: m * float("nan")), "NaN"),
    ("infinite pose", set_pose(lambda m: m + [[0, 0, 0, math.inf]] * 4), "infinite"),
    ("pose of words", lambda d: d["frames"][1].update(transform_matrix=[["a"] * 4] * 4), "not a matrix"),
    ("ragged pose", lambda d: d["frames"][1].update(transform_matrix=[[1, 0], [0]]), "not a matrix"),
    ("3x3 pose", set_pose(lambda m: m[:3, :3]), "shape"),
    ("scaled pose", set_pose(lambda m: m @ np.diag([2.0, 2, 2, 1])), "scaled by 2"),
    ("sheared pose", set_pose(lambda m: m + np.eye(4, k=1) * [[1], [0], [0], [0]]), "not a rotation"),
    ("mirrored pose", set_pose(lambda m: m @ np.diag([-1.0, 1, 1, 1])), "mirrors"),
    ("zero pose", set_pose(lambda m: m * np.diag([0, 0, 0, 1.0])), "scaled by 0"),
    ("last row", set_pose(lambda m: np.vstack([m[:3], [0, 0, 1, 0]])), "last row"),
    ("far away", set_pose(lambda m: m + np.eye(4, k=3) * 1e9), "from the origin"),
    ("some poses", lambda d: d["frames"][1].pop("transform_matrix"), "1 of 6 frames have no transform_matrix"),
    ("no focal length", lambda d: (d.pop("fl_x"), d.pop("fl_y")), "no focal length"),
    ("negative focal length", lambda d: d.update(fl_x=-50), "negative"),
    ("focal length is a word", lambda d: d.update(fl_x="50"), "not a finite number"),
    ("focal length is true", lambda d: d.update(fl_x=True), "not a finite number"),
    ("wild principal point", lambda d: d.update(cx=1e4), "principal point"),
    ("other size", lambda d: d.update(w=128), "128.*64x48"),
    ("panorama", lambda d: d.update(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR"),
    ("pinhole with distortion", lambda d: d.update(camera_model="PINHOLE", k1=0.1), "PINHOLE"),
    ("fisheye of six coefficients", lambda d: d.update(camera_model="FISHEYE624"), "FISHEYE624"),
    ("size of a frame", set_frame(1, w=60, h=48), "frame 'images/frame1.png' says w = 60 but .* 64x48"),
    ("some times", lambda d: d["frames"][1].pop("time"), "1 of 6 frames have no time"),
    ("time is NaN", set_frame(1, time=float("nan")), "time of frame"),
    ("one time for all", lambda d: [f.update(time=0.5) for f in d["frames"]], "same time"),
    ("unknown name in a list", lambda d: d.update(train_filenames=["images/none.png"]), "no frame"),
    ("list is a word", lambda d: d.update(train_filenames="all"), "not a list"),
    ("in two lists", set_lists(train=[0, 1, 2], test=[2]), "in train_filenames and in test_filenames"),
    ("one to train on", set_lists(train=[0], test=[1, 2]), "1 training frame"),
    ("only tests", set_lists(test=[1, 2]), "0 training frame"),
    ("depth kind", lambda d: d.update(depth_kind="inches"), "inches"),
    ("depth unit", lambda d: d.update(depth_unit_scale_factor=0), "depth_unit_scale_factor"),
    ("missing mask", set_frame(1, mask_path="masks/1.png"), "mask_path.*missing"),
    ("depth is an RGB image", set_frame(1, depth_file_path="images/frame0.png"), "not a depth map"),
    ("rate", lambda d: d.update(fps=0), "fps"),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in BAD_DOCUMENTS], ids=[c[0] for c in BAD_DOCUMENTS])
def test_bad_documents_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    folder = edit(make_posed(tmp_path / "c"), change)
    with pytest.raises(BadInput, match=words) as caught:
        read_nerfstudio(folder)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"frames": 1e999}', '{"frames": [3]}'])
def test_bad_json_is_refused(tmp_path: Path, text: str) -> None:
    (make_posed(tmp_path / "c") / "transforms.json").write_text(text)
    with pytest.raises(BadInput):
        read_nerfstudio(tmp_path / "c")


def test_frames_that_tell_their_size_may_differ_in_it(tmp_path: Path) -> None:
    """Each frame's intrinsics are those of its own image; all come out at one size."""
    folder = make_posed(tmp_path / "c")
    cv2.imwrite(str(folder / "images" / "frame1.png"), picture(1, 128, 96)[:, :, ::-1])
    edit(folder, set_frame(1, w=128, h=96, fl_x=100.0, fl_y=104.0, cx=62.0, cy=50.0))
    _, document = ingest(tmp_path, folder)
    assert (document["w"], document["h"]) == (64, 48)
    assert (document["fl_x"], document["fl_y"], document["cx"], document["cy"]) == (50, 52, 31, 25)
    assert all("fl_x" not in frame for frame in document["frames"])
    cv2.imwrite(str(folder / "images" / "frame1.png"), picture(1, 96, 128)[:, :, ::-1])
    edit(folder, set_frame(1, w=96, h=128))
    with pytest.raises(BadInput, match=r"frame1\.png has 96x128 pixels, another shape"):
        read_nerfstudio(folder)


def test_validation_frames_may_be_the_test_frames(tmp_path: Path) -> None:
    """nerfstudio wants both lists filled."""
    capture = read_nerfstudio(edit(make_posed(tmp_path / "c"), set_lists(train=[0, 1, 2], val=[3, 4], test=[4, 5])))
    assert [frame.split for frame in capture.frames] == ["train"] * 3 + ["val", "test", "test"]


def test_an_applied_transform_changes_nothing(tmp_path: Path) -> None:
    """It tells how the poses came from COLMAP's; the poses themselves have it in them already."""
    plain = read_nerfstudio(make_posed(tmp_path / "a"))
    moved = read_nerfstudio(
        make_posed(tmp_path / "b", applied_transform=[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]], applied_scale=2.0)
    )
    for one, other in zip(plain.frames, moved.frames, strict=True):
        assert one.pose is not None
        assert np.array_equal(one.pose, other.pose)  # type: ignore[arg-type]


def test_files_that_are_not_what_they_say(tmp_path: Path) -> None:
    folder = make_posed(tmp_path / "c")
    (folder / "images" / "frame3.png").write_text("no image")
    with pytest.raises(BadInput, match=r"frame3\.png is not an image"):
        read_nerfstudio(folder)
    make_images(folder / "images", width=32)
    make_images(folder / "images", frames=1)
    with pytest.raises(BadInput, match=r"frame1\.png has 32x48"):
        read_nerfstudio(folder)


@pytest.mark.parametrize("inwards", [True, False])
def test_links_may_not_leave_the_folder(tmp_path: Path, inwards: bool) -> None:
    folder = make_posed(tmp_path / "c")
    image = folder / "images" / "frame3.png"
    target = (folder if inwards else tmp_path) / "elsewhere.png"
    image.rename(target)
    image.symlink_to(target)
    if inwards:
        assert len(read_nerfstudio(folder).frames) == 6
    else:
        with pytest.raises(BadInput, match="link that leaves"):
            read_nerfstudio(folder)


PARTS = st.sampled_from(["..", ".", "", "a", "images", "frame0.png", "C:", "~", "link", "a\\..", "\\", "\0", "é"])


@given(parts=st.lists(PARTS, max_size=6), lead=st.sampled_from(["", "/", "\\", "./"]))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_written_path_escapes(tmp_path: Path, parts: list[str], lead: str) -> None:
    folder = tmp_path / "capture"
    if not folder.exists():
        make_images(folder / "images", 1)
        (tmp_path / "a").write_text("outside")
        (folder / "a").write_text("inside")
        (folder / "link").symlink_to(tmp_path)
    written = lead + "/".join(parts)
    try:
        found = inside(folder, written, "file_path")
    except BadInput:
        return
    assert found.resolve().is_relative_to(folder.resolve())
    assert found.is_file()


def test_times_outside_the_unit_are_scaled_and_told(tmp_path: Path) -> None:
    folder = edit(
        make_posed(tmp_path / "c"), lambda d: [f.update(time=10.0 + 2 * i) for i, f in enumerate(d["frames"])]
    )
    capture = read_nerfstudio(folder)
    assert np.allclose([f.time for f in capture.frames], np.arange(6) / 5)
    assert "from 10 to 20" in capture.warnings[0]


def test_without_times_order_counts(tmp_path: Path) -> None:
    capture = read_nerfstudio(edit(make_posed(tmp_path / "c"), lambda d: [f.pop("time") for f in d["frames"]]))
    assert np.allclose([f.time for f in capture.frames], np.arange(6) / 5)
    assert "order" in capture.warnings[0]


def test_frames_in_no_list_are_not_used(tmp_path: Path) -> None:
    folder = edit(make_posed(tmp_path / "c"), set_lists(train=[0, 1, 4], val=[2], test=[5]))
    (folder / "images" / "frame3.png").unlink()  # nobody needs it
    capture_folder, document = ingest(tmp_path, folder)
    assert document["train_filenames"] == ["images/frame0.png", "images/frame1.png", "images/frame4.png"]
    assert document["val_filenames"] == ["images/frame2.png"]
    assert document["test_filenames"] == ["images/frame5.png"]
    assert len(document["frames"]) == len(list((capture_folder / "images").iterdir())) == 5


def test_only_training_frames_are_thinned(tmp_path: Path) -> None:
    folder = edit(make_posed(tmp_path / "c", 12), set_lists(train=list(range(9)), test=[9, 10, 11]))
    _, document = ingest(tmp_path, folder, max_frames=3)
    assert document["train_filenames"] == ["images/frame0.png", "images/frame4.png", "images/frame8.png"]
    assert len(document["test_filenames"]) == 3


def test_field_of_view_instead_of_focal_length(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del document[key]
        document["camera_angle_x"] = math.pi / 2
        for frame in document["frames"]:
            frame["file_path"] = frame["file_path"].removesuffix(".png")

    _, document = ingest(tmp_path, edit(make_posed(tmp_path / "c"), change))
    assert [document[k] for k in ("fl_x", "fl_y", "cx", "cy")] == pytest.approx([32, 32, 32, 24])


def test_intrinsics_of_each_frame_and_scaling(tmp_path: Path) -> None:
    folder = edit(make_posed(tmp_path / "c"), set_frame(2, fl_x=60.0))
    _, document = ingest(tmp_path, folder, max_size=32)
    assert (document["w"], document["h"]) == (32, 24)
    assert [document[k] for k in ("fl_x", "fl_y", "cx", "cy")] == [25, 26, 15.5, 12.5]
    assert [f["fl_x"] for f in document["frames"]] == [25, 25, 30, 25, 25, 25]


def test_3x4_and_nearly_orthonormal_poses(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for frame in document["frames"]:
            frame["transform_matrix"] = np.array(frame["transform_matrix"], dtype=np.float16)[:3].tolist()

    for frame in read_nerfstudio(edit(make_posed(tmp_path / "c"), change)).frames:
        assert frame.pose is not None
        assert np.abs(frame.pose[:3, :3] @ frame.pose[:3, :3].T - np.eye(3)).max() < 1e-12
        assert frame.pose[3].tolist() == [0, 0, 0, 1]


def test_frames_without_any_pose_are_left_to_the_cameras_stage(tmp_path: Path) -> None:
    folder = edit(make_posed(tmp_path / "c"), lambda d: [f.pop("transform_matrix") for f in d["frames"]])
    _, document = ingest(tmp_path, folder)
    assert all("transform_matrix" not in f for f in document["frames"])
    assert document["fl_x"] == 50


def test_distorted_capture_becomes_pinhole(tmp_path: Path) -> None:
    """Image, depth and mask of a bent plane come out straight; beyond the picture the mask says ignore."""
    folder = make_posed(tmp_path / "c", 2, 128, 96, k1=0.3, k2=0.1)
    edit(folder, lambda d: d.update(fl_x=100.0, fl_y=100.0, cx=64.0, cy=48.0))
    column, row = np.meshgrid(np.arange(128) + 0.5, np.arange(96) + 0.5)
    bent = np.stack([(column - 64) / 100, (row - 48) / 100])
    ideal = bent.copy()
    for _ in range(50):  # invert the model by fixed point
        r2 = (ideal**2).sum(0)
        ideal = bent / (1 + 0.3 * r2 + 0.1 * r2**2)
    ramp = 128 + 120 * ideal[0] / 0.7
    cv2.imwrite(str(folder / "images" / "frame0.png"), np.repeat(ramp[:, :, None], 3, 2).clip(0, 255).astype(np.uint8))
    (folder / "depth").mkdir()
    cv2.imwrite(str(folder / "depth" / "0.png"), (2000 + 1000 * ideal[0]).astype(np.uint16))
    edit(folder, set_frame(0, depth_file_path="depth/0.png"))
    capture, document = ingest(tmp_path, folder)
    first = next(f for f in document["frames"] if f["file_path"] == "images/frame0.png")
    image = cv2.imread(str(capture / "images" / "frame0.png"))[:, :, 0].astype(float)
    valid = cv2.imread(str(capture / first["mask_path"]), cv2.IMREAD_GRAYSCALE) > 0
    straight = 128 + 120 * (column - 64) / 100 / 0.7
    inner = cv2.erode(valid.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert 0.5 < valid.mean() < 1
    assert np.abs(image - straight)[inner].max() < 3
    depth = cv2.imread(str(capture / first["user_depth_file_path"]), cv2.IMREAD_UNCHANGED)
    assert np.abs(depth - (2000 + 10 * (column - 64)))[inner].max() < 16  # nearest: within a pixel
    assert (depth[~valid] == 0).all()
    assert (document["k1"], document["fl_x"]) == (0, 100)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_depth_and_masks_are_carried_over(tmp_path: Path, suffix: str) -> None:
    folder = make_posed(tmp_path / "c", 3, 64, 48, depth_unit_scale_factor=0.002, depth_kind="relative_depth")
    values = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 3
    (folder / "maps").mkdir()
    if suffix == ".npy":
        raw = values.astype(np.float32)
        raw[0, 0], raw[0, 1], raw[0, 2] = np.nan, np.inf, -1
        np.save(folder / "maps" / "depth.npy", raw)
    else:
        cv2.imwrite(str(folder / "maps" / "depth.png"), values)
    mask = np.zeros((96, 128), dtype=np.uint8)  # twice the size of the image
    mask[:, 64:] = 200
    cv2.imwrite(str(folder / "maps" / "mask.png"), mask)
    files = {"depth_file_path": f"maps/depth{suffix}"}
    files |= dict.fromkeys(("mask_path", "motion_mask_path", "covisible_path"), "maps/mask.png")
    capture, document = ingest(tmp_path, edit(folder, set_frame(1, **files)))
    entry = document["frames"][1]
    unit = document["user_depth_unit_scale_factor"]
    depth = read_depth(capture / entry["user_depth_file_path"], unit, (64, 48))
    expected = values.astype(np.float64) * 0.002
    expected[0, :3] = 0 if suffix == ".npy" else expected[0, :3]
    assert np.abs(depth - expected).max() <= unit / 2 + 1e-5
    assert document["depth_kind"] == "relative_depth"
    assert suffix == ".npy" or unit == 0.002
    for key, place in (("mask_path", "masks"), ("motion_mask_path", "motion_masks"), ("covisible_path", "covisible")):
        stored = cv2.imread(str(capture / entry[key]), cv2.IMREAD_UNCHANGED)
        assert entry[key] == f"{place}/frame1.png"
        assert stored.shape == (48, 64)
        assert set(np.unique(stored)) == {0, 255}
        assert (stored[:, 32:] == 255).all()
    assert "mask_path" not in document["frames"][0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True), "depth map"),
        (lambda path: np.save(path, np.zeros((48, 64, 3))), "shape"),
        (lambda path: np.save(path, np.zeros((10, 64))), "another shape"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00junk"), "depth map"),
    ],
)
def test_bad_npy_depth_is_refused(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    folder = make_posed(tmp_path / "c")
    make(folder / "depth.npy")
    with pytest.raises(BadInput, match=words):
        read_nerfstudio(edit(folder, set_frame(0, depth_file_path="depth.npy")))


def test_document_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = make_posed(tmp_path / "c")
    text = (folder / "transforms.json").read_text()
    (folder / "transforms.json").write_text("\ufeff" + json.dumps(json.loads(text)), encoding="utf-8")
    assert len(read_nerfstudio(folder).frames) == 6
