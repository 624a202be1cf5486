from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from colmap_samples import llff_rows, make_colmap, make_llff, make_nvidia, write_pictures
from ingest_samples import index_of, make_run, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import frames_of, load_clip, read_depth, read_mask, read_transforms
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.llff import read_llff


def test_poses_and_intrinsics(tmp_path: Path) -> None:
    capture = read_llff(make_llff(tmp_path / "c"))
    _, poses = llff_rows(6)
    assert (capture.kind, capture.width, capture.height, capture.warnings) == ("llff", 64, 48, [])
    assert capture.facts == {"depth_range": [pytest.approx(2.0025), 9.0]}
    for index, frame in enumerate(capture.frames):
        assert (frame.time, frame.split) == (index / 5, None)
        assert frame.pose is not None
        assert np.abs(frame.pose - poses[index]).max() < 1e-12
        assert frame.lens is not None
        assert (frame.lens.fl_x, frame.lens.fl_y, frame.lens.cx, frame.lens.cy) == (50, 50, 32, 24)


def test_the_focal_length_follows_the_size_of_the_images(tmp_path: Path) -> None:
    capture = read_llff(make_llff(tmp_path / "c", images="images_2", scale=2))
    assert (capture.width, capture.height) == (32, 24)
    assert capture.frames[0].lens is not None
    assert capture.frames[0].lens.fl_x == 25


def test_the_largest_images_that_fit_are_taken(tmp_path: Path) -> None:
    folder = make_llff(tmp_path / "c", images="images_32x24", scale=2)
    write_pictures(folder / "images_24x18", [f"{i:05d}.png" for i in range(6)], (24, 18))
    write_pictures(folder / "images", [f"{i:05d}.png" for i in range(5)])
    assert read_llff(folder).frames[0].name == "images_32x24/00000.png"


def test_a_colmap_model_beside_is_not_read(tmp_path: Path) -> None:
    """`poses_bounds.npy` was made from it, for exactly these images."""
    folder = make_colmap(make_llff(tmp_path / "c"))
    for path in (folder / "images").glob("frame*"):
        path.unlink()
    assert inspect_input(folder)["kind"] == "llff"


def test_a_dynamic_scene_is_split_as_in_the_literature(tmp_path: Path) -> None:
    """Training: the moving camera. Test: what the first camera saw meanwhile, at the same times."""
    run, config = make_run(tmp_path / "run", make_nvidia(tmp_path / "c"))
    ingest_capture(run, config, recording()[0])
    document = read_transforms(run.capture)
    assert document["source"] == "nvidia"
    train, test = frames_of(document, "train"), frames_of(document, "test")
    _, poses = llff_rows(12)
    for time, frame in enumerate(train):
        assert frame["time"] == pytest.approx(time / 13)
        assert np.abs(np.array(frame["transform_matrix"]) - poses[time % 12]).max() < 1e-12
        rgb = cv2.imread(str(run.capture / frame["file_path"]))[:, :, ::-1]
        assert index_of(rgb) == (5 * (time % 12) + time) % 32
        assert read_mask(run.capture / frame["motion_mask_path"], (64, 48)).all() == (time % 2 == 1)
        unit = document["user_depth_unit_scale_factor"]
        disparity = read_depth(run.capture / frame["user_depth_file_path"], unit, (64, 48))
        assert np.abs(disparity - (1 + time)).max() < 1e-3
    assert [frame["time"] for frame in test] == pytest.approx([t / 13 for t in range(14) if t % 12])
    for time, frame in zip([t for t in range(14) if t % 12], test, strict=True):
        assert np.abs(np.array(frame["transform_matrix"]) - poses[0]).max() < 1e-12
        assert index_of(cv2.imread(str(run.capture / frame["file_path"]))[:, :, ::-1]) == time
        assert "motion_mask_path" in frame
        assert "user_depth_file_path" not in frame
    assert document["user_depth_kind"] == "relative_disparity"
    clip = load_clip(run.capture, "train", 64)
    assert clip is not None
    assert clip.depth_range == (pytest.approx(2.0), 9.0)


def test_maps_that_do_not_belong_to_the_frames_are_left_out(tmp_path: Path) -> None:
    folder = make_nvidia(tmp_path / "c")
    (folder / "disp" / "00003.npy").unlink()
    capture = read_llff(folder)
    assert "disp holds 13 maps for 14 frames" in capture.warnings[0]
    assert all(frame.depth is None for frame in capture.frames)


def rows(change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = np.load(folder / "poses_bounds.npy")
        changed = change(values)
        np.save(folder / "poses_bounds.npy", values if changed is None else changed, allow_pickle=True)

    return apply


def put(row: int, column: int, value: float) -> Callable[[Path], None]:
    return rows(lambda values: values.__setitem__((row, column), value))


def header(text: str) -> Callable[[Path], object]:
    """A file of a few bytes whose header tells of more."""
    head = text.encode().ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(64)
    return lambda folder: (folder / "poses_bounds.npy").write_bytes(data)


def link(folder: Path) -> None:
    image = folder / "images" / "00002.png"
    image.rename(folder.parent / "elsewhere.png")
    image.symlink_to(folder.parent / "elsewhere.png")


F8 = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"
BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("no array", lambda f: (f / "poses_bounds.npy").write_text("poses"), "cannot|not an array that can be read"),
    ("pickle", rows(lambda _: np.array([{"a": 1}] * 6, dtype=object)), "not an array that can be read"),
    ("2^60 rows", header(F8 % "1152921504606846976, 17"), "not an array that can be read"),
    ("2^62 x 2^62", header(F8 % "4611686018427387904, 4611686018427387904"), "poses_bounds.npy"),
    ("negative shape", header(F8 % "-6, 17"), "poses_bounds.npy"),
    (
        "cut off",
        lambda f: (f / "poses_bounds.npy").write_bytes((f / "poses_bounds.npy").read_bytes()[:-1]),
        "not an arr",
    ),
    ("15 columns", rows(lambda v: v[:, :15]), "N x 17"),
    ("words", rows(lambda v: v.astype("U8")), "N x 17"),
    ("no rows", rows(lambda v: v[:0]), "0 rows|not an array"),
    ("one row", rows(lambda v: v[:1]), "1 rows"),
    ("a row too many", rows(lambda v: np.vstack([v, v[:1]])), r"7 rows but .*\(images: 6\)"),
    ("NaN pose", put(2, 3, float("nan")), "row 2 .* NaN"),
    ("mirrored pose", rows(lambda v: v.__setitem__((2, slice(0, 11, 5)), -v[2, 0:11:5])), "mirrors"),
    ("zero pose", rows(lambda v: v.__setitem__((slice(None), [0, 1, 2, 5, 6, 7, 10, 11, 12]), 0)), "scaled by 0"),
    ("no height", put(3, 4, 0.0), "another shape"),
    ("huge width", put(3, 9, 1e300), "another shape"),
    ("negative focal length", put(3, 14, -50.0), "negative"),
    ("no images", lambda f: [p.unlink() for p in (f / "images").iterdir()], r"6 rows but .*\(images: 0\)"),
    ("no folder of images", lambda f: (f / "images").rename(f / "pictures"), r"\(none\)"),
    ("image is a text", lambda f: (f / "images" / "00002.png").write_text("no image"), "00002.png is not an image"),
    ("link to elsewhere", link, "link that leaves"),
]


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_captures_are_refused(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    folder = make_llff(tmp_path / "c")
    spoil(folder)
    with pytest.raises(BadInput, match=words) as caught:
        read_llff(folder)
    assert caught.value.remedy


def test_impossible_bounds_are_told_and_left_out(tmp_path: Path) -> None:
    folder = make_llff(tmp_path / "c")
    rows(lambda values: values.__setitem__((slice(None), 15), -1.0))(folder)
    capture = read_llff(folder)
    assert capture.facts == {}
    assert "cannot be" in capture.warnings[0]
