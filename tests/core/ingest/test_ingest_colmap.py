import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from colmap_samples import Sample, make_colmap, quaternion, write_pictures
from ingest_samples import index_of, make_run, picture, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import frames_of, read_transforms
from dpdy_core.ingest.colmap import read_colmap
from dpdy_core.ingest.colmap_model import CAMERA_MODELS, read_model
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.lens import undistortion
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints


def matrix(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) of a quaternion w x y z."""
    return np.array(pycolmap.Rotation3d(np.roll(rotation, -1)).matrix())


def opengl(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(4, 4) camera-to-world with y and z turned round, from a quaternion w x y z and a translation."""
    w2c = np.eye(4)
    w2c[:3, :3] = matrix(rotation)
    w2c[:3, 3] = translation
    return np.linalg.inv(w2c) @ np.diag([1.0, -1, -1, 1])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("place", ["sparse/0", "sparse", ".", "colmap/sparse/0"])
def test_models_are_read_wherever_they_lie(tmp_path: Path, binary: bool, place: str) -> None:
    capture = read_colmap(make_colmap(tmp_path / "c", binary=binary, place=place))
    sample = Sample([f"frame{i}.png" for i in range(6)])
    assert (capture.kind, capture.width, capture.height, capture.warnings) == ("colmap", 64, 48, [])
    assert [frame.name for frame in capture.frames] == sample.names
    assert [frame.time for frame in capture.frames] == pytest.approx(np.arange(6) / 5)
    for frame, rotation, translation in zip(capture.frames, sample.rotations, sample.translations, strict=True):
        assert frame.pose is not None
        assert np.abs(frame.pose - opengl(rotation, translation)).max() < 1e-12
        assert frame.lens is not None
        assert (frame.lens.fl_x, frame.lens.fl_y, frame.lens.cx, frame.lens.cy) == (50, 52, 31, 25)
        assert not frame.lens.is_distorted
        assert frame.points is not None
        assert frame.points.tolist() == list(range(30))
    assert capture.points is not None
    assert np.array_equal(capture.points, sample.xyz)


def reconstruction(names: list[str]) -> Any:
    """A pycolmap model of `names`, its cameras distorted and of two sizes."""
    model = pycolmap.Reconstruction()
    cameras = [
        pycolmap.Camera(
            camera_id=1, model="OPENCV", width=64, height=48, params=[50, 51, 32, 24, 0.1, 0.01, 1e-3, 2e-3]
        ),
        pycolmap.Camera(camera_id=2, model="SIMPLE_RADIAL", width=128, height=96, params=[100, 64, 48, -0.05]),
    ]
    for camera in cameras:
        model.add_camera_with_trivial_rig(camera)
    for index, name in enumerate(names):
        turn = pycolmap.Rotation3d(np.roll(quaternion((0.1 * index, 0.2, -0.3), 0.4), -1))
        pose = pycolmap.Rigid3d(turn, np.array([0.5 * index, 1.0, -2.0]))
        image = pycolmap.Image(name=name, camera_id=1 + index % 2, image_id=index + 1)
        model.add_image_with_trivial_frame(image, pose)
    return model


@pytest.mark.parametrize("binary", [True, False])
def test_what_colmap_itself_writes_is_read(tmp_path: Path, binary: bool) -> None:
    names = [f"clip/shot_{i:03d}.png" for i in (4, 5, 7, 12)]
    for index, name in enumerate(names):
        write_pictures(tmp_path / "images", [name], (64, 48) if index % 2 == 0 else (128, 96))
    model = reconstruction(names)
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (model.write_binary if binary else model.write_text)(str(tmp_path / "sparse" / "0"))
    capture = read_colmap(tmp_path)
    assert [frame.time for frame in capture.frames] == pytest.approx([0, 1 / 8, 3 / 8, 1])
    written = {image.name: image for image in model.images.values()}
    for frame in capture.frames:
        image = written[frame.name]
        w2c = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        assert frame.pose is not None
        assert np.abs(frame.pose - np.linalg.inv(w2c) @ np.diag([1.0, -1, -1, 1])).max() < 1e-12
    assert [frame.size for frame in capture.frames] == [(64, 48), (128, 96)] * 2


COEFFICIENTS = {
    "SIMPLE_RADIAL": [-0.1],
    "RADIAL": [-0.1, 0.03],
    "OPENCV": [-0.1, 0.03, 2e-3, -3e-3],
    "FULL_OPENCV": [-0.1, 0.03, 2e-3, -3e-3, 0.01, 0.05, 0.02, 0.01],
    "OPENCV_FISHEYE": [-0.02, 0.01, 0.004, -0.002],
    "SIMPLE_RADIAL_FISHEYE": [0.03],
    "RADIAL_FISHEYE": [0.03, -0.01],
}


@pytest.mark.parametrize("model", [name for name, _ in CAMERA_MODELS.values()])
def test_every_model_is_undistorted_as_colmap_projects(tmp_path: Path, model: str) -> None:
    """The source of each pinhole pixel is where pycolmap's camera sees its ray."""
    coefficients = COEFFICIENTS.get(model, [])
    count = dict(CAMERA_MODELS.values())[model]
    parameters = [60.0, 61.0, 33.0, 23.0][count - len(coefficients) == 3 :] + coefficients
    sample = Sample(["a1.png", "a2.png"], model=model, parameters=tuple(parameters))
    write_pictures(tmp_path / "images", sample.names)
    sample.write_text(tmp_path / "sparse" / "0")
    lens = read_colmap(tmp_path).frames[0].lens
    assert lens is not None
    assert lens.is_distorted == (bool(coefficients) or "FISHEYE" in model)
    camera = pycolmap.Camera(model=model, width=64, height=48, params=parameters)
    column, row = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    rays = np.stack([(column - lens.cx) / lens.fl_x, (row - lens.cy) / lens.fl_y, np.ones_like(column)], -1)
    expected = np.array(camera.img_from_cam(rays.reshape(-1, 3))).reshape(48, 64, 2)
    if lens.is_distorted:
        x, y, _ = undistortion(lens, 64, 48)
        assert np.abs(np.stack([x, y], -1) + 0.5 - expected).max() < 1e-3
    else:
        assert np.abs(expected - np.stack([column, row], -1)).max() < 1e-9


def test_the_stage_keeps_poses_intrinsics_and_points(tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", make_colmap(tmp_path / "c"))
    ingest_capture(run, config, recording()[0])
    document = read_transforms(run.capture)
    assert (document["source"], document["fl_x"], document["fl_y"], document["cx"]) == ("colmap", 50, 52, 31)
    train = frames_of(document, "train")
    assert [index_of(cv2.imread(str(run.capture / f["file_path"]))[:, :, ::-1]) for f in train] == list(range(6))
    points = SparsePoints.load(run.capture / POINTS_FILE)
    sample = Sample([f"frame{i}.png" for i in range(6)])
    xy, depth = points.seen_by(train[3]["file_path"])
    turn = matrix(sample.rotations[3])
    local = sample.xyz @ turn.T + sample.translations[3]
    expected = local[:, :2] / local[:, 2:] * [50, 52] + [31, 25]
    inside = (expected >= 0).all(1) & (expected < [64, 48]).all(1)
    assert inside.sum() > 20
    assert np.abs(depth - local[inside, 2]).max() < 1e-5
    assert np.abs(xy - expected[inside]).max() < 1e-4


def test_images_may_be_scaled_copies(tmp_path: Path) -> None:
    folder = make_colmap(tmp_path / "c")
    (folder / "images").rename(folder / "full")
    write_pictures(folder / "images_2", [f"frame{i}.png" for i in range(6)], (32, 24))
    lens = read_colmap(folder).frames[0].lens
    assert lens is not None
    assert (lens.fl_x, lens.fl_y, lens.cx, lens.cy) == (25, 26, 15.5, 12.5)


def test_images_beside_the_model(tmp_path: Path) -> None:
    sample = Sample(["0001.png", "0003.png", "0005.png"])
    write_pictures(tmp_path, sample.names)
    sample.write_text(tmp_path)
    assert inspect_input(tmp_path)["kind"] == "colmap"


def test_images_that_did_not_register_are_left_out_and_told(tmp_path: Path) -> None:
    folder = make_colmap(tmp_path / "c")
    write_pictures(folder / "images", ["frame6.png", "frame7.png"])
    assert "2 images are not in the COLMAP model" in read_colmap(folder).warnings[0]


def test_the_largest_of_several_models_is_taken(tmp_path: Path) -> None:
    folder = make_colmap(tmp_path / "c", 6)
    Sample([f"frame{i}.png" for i in range(2)]).write_binary(folder / "sparse" / "0")
    Sample([f"frame{i}.png" for i in range(6)]).write_text(folder / "sparse" / "1")
    capture = read_colmap(folder)
    assert len(capture.frames) == 6
    assert "2 COLMAP models (0: 2, 1: 6 images); 1 is taken" in capture.warnings[0]


def test_masks_and_the_list_of_test_images(tmp_path: Path) -> None:
    folder = make_colmap(tmp_path / "c")
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "frame2.png.png"), np.full((48, 64), 255, np.uint8))
    (folder / "sparse" / "0" / "test.txt").write_text("frame1.png\nframe4.png\n")
    frames = read_colmap(folder).frames
    assert [frame.split for frame in frames] == ["train", "test", "train", "train", "test", "train"]
    assert [frame.mask is not None for frame in frames] == [i == 2 for i in range(6)]
    (folder / "sparse" / "0" / "test.txt").write_text("")
    assert {frame.split for frame in read_colmap(folder).frames} == {"train"}
    (folder / "sparse" / "0" / "test.txt").write_text("\n".join(f"frame{i}.png" for i in range(5)))
    with pytest.raises(BadInput, match=r"test\.txt names all images but 1"):
        read_colmap(folder)


def test_a_list_of_times_wins_over_the_names(tmp_path: Path) -> None:
    folder = make_colmap(tmp_path / "c")
    path = folder / "sparse" / "0" / "times.txt"
    path.write_text("".join(f"{1 - i / 5} frame{i}.png\n" for i in range(6)))
    assert [frame.name for frame in read_colmap(folder).frames] == [f"frame{i}.png" for i in (5, 4, 3, 2, 1, 0)]
    for text, words in (
        ("0 frame0.png\n", "no time for 'frame1.png'"),
        ("soon frame0.png\n", "'soon' for a time"),
        ("".join(f"{i} frame{i}.png\n" for i in range(6)), "do not run within 0 to 1"),
        ("".join(f"0.5 frame{i}.png\n" for i in range(6)), "do not run within 0 to 1"),
        ("".join(f"nan frame{i}.png\n" for i in range(6)), "do not run within 0 to 1"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=words):
            read_colmap(folder)


def change(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "sparse" / "0" / name
        path.write_bytes(edit(path.read_bytes()))

    return apply


def patch(name: str, at: int, layout: str, *values: float) -> Callable[[Path], None]:
    """Overwrite numbers at a byte."""
    new = struct.pack(layout, *values)
    return change(name, lambda data: data[:at] + new + data[at + len(new) :])


def rename(new: str) -> Callable[[Path], None]:
    """Another name, as long, for the first image."""
    return change("images.bin", lambda data: data.replace(b"frame0.png\0", new.encode() + b"\0", 1))


def link(folder: Path) -> None:
    target = folder.parent / "elsewhere.bin"
    (folder / "sparse" / "0" / "images.bin").rename(target)
    (folder / "sparse" / "0" / "images.bin").symlink_to(target)


HUGE = 2**60
FIRST_NAME = 8 + 64  # of images.bin
FIRST_OBSERVATIONS = FIRST_NAME + len("frame0.png") + 1
BAD_BINARIES: list[tuple[str, Callable[[Path], object], str]] = [
    ("cameras cut off", change("cameras.bin", lambda d: d[:-1]), "cameras.bin is cut off"),
    ("empty cameras", change("cameras.bin", lambda _: b""), "cameras.bin is cut off after 0 bytes"),
    ("no cameras", change("cameras.bin", lambda _: bytes(8)), "camera 1, which is missing"),
    ("images cut off", change("images.bin", lambda d: d[: len(d) // 2]), "images.bin"),
    ("points cut off", change("points3D.bin", lambda d: d[:-3]), "points3D.bin"),
    ("too many bytes", change("images.bin", lambda d: d + b"abc"), "images.bin has 3 bytes too many"),
    ("2^60 cameras", patch("cameras.bin", 0, "<Q", HUGE), "holds 1152921504606846976 cameras"),
    ("2^60 images", patch("images.bin", 0, "<Q", HUGE), "holds 1152921504606846976 images"),
    ("2^60 points", patch("points3D.bin", 0, "<Q", HUGE), "holds 1152921504606846976 points"),
    ("2^60 observations", patch("images.bin", FIRST_OBSERVATIONS, "<Q", HUGE), "1152921504606846976 observations"),
    ("2^64 - 1 observations", patch("images.bin", FIRST_OBSERVATIONS, "<q", -1), "observations but is too short"),
    ("2^60 in a track", patch("points3D.bin", 8 + 43, "<Q", HUGE), "observations of a point"),
    ("one image less", patch("images.bin", 0, "<Q", 5), "bytes too many"),
    ("no images", change("images.bin", lambda _: bytes(8)), r"0 registered image\(s\)"),
    ("one image", lambda f: Sample(["frame0.png"]).write_binary(f / "sparse" / "0"), r"1 registered image\(s\)"),
    ("images.bin is gone", lambda f: (f / "sparse" / "0" / "images.bin").unlink(), "no images.bin"),
    ("NaN translation", patch("images.bin", 8 + 4 + 32, "<d", float("nan")), "NaN"),
    ("NaN quaternion", patch("images.bin", 8 + 4, "<d", float("nan")), "quaternion of length nan"),
    ("zero quaternion", patch("images.bin", 8 + 4, "<4d", 0, 0, 0, 0), "quaternion of length 0"),
    ("far away", patch("images.bin", 8 + 4 + 32, "<d", 1e300), "from the origin"),
    ("unknown camera", patch("images.bin", 8 + 60, "<I", 99), "camera 99, which is missing"),
    ("image twice", patch("images.bin", 8, "<I", 2), "lists image 2 twice"),
    ("FOV camera", patch("cameras.bin", 12, "<i", 7), "the camera model FOV"),
    ("THIN_PRISM_FISHEYE camera", patch("cameras.bin", 12, "<i", 10), "THIN_PRISM_FISHEYE"),
    ("camera model -5", patch("cameras.bin", 12, "<i", -5), "the camera model number -5"),
    ("no pixels", patch("cameras.bin", 16, "<Q", 0), "has 0x48 pixels"),
    ("2^60 pixels", patch("cameras.bin", 16, "<Q", HUGE), "has 1152921504606846976x48 pixels"),
    ("another shape", patch("cameras.bin", 16, "<Q", 48), "48x48 pixels but its image 64x48"),
    ("NaN focal length", patch("cameras.bin", 32, "<d", float("nan")), "not finite"),
    ("negative focal length", patch("cameras.bin", 32, "<d", -50.0), "negative"),
    ("wild principal point", patch("cameras.bin", 48, "<d", 1e6), "principal point"),
    ("path upwards", rename("../x/a.png"), "leaves the capture's folder"),
    ("path upwards in the middle", rename("a/../../.."), "leaves the capture's folder"),
    ("missing image", rename("frame9.png"), "'images/frame9.png', which is missing"),
    ("no name", rename(""), "missing|cannot be opened|not the name|no file"),
    ("name without end", change("images.bin", lambda d: d[:FIRST_NAME] + b"x" * 5000), "a name that does not end"),
    (
        "name that is no text",
        change("images.bin", lambda d: d.replace(b"frame0", b"\xff\xfe\xff\xfe\xff\xfe")),
        "damaged",
    ),
    ("an image's name twice", rename("frame1.png"), "name twice"),
    ("link to elsewhere", link, "link that leaves"),
]


@pytest.mark.parametrize(("spoil", "words"), [c[1:] for c in BAD_BINARIES], ids=[c[0] for c in BAD_BINARIES])
def test_bad_binary_models_are_refused(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    folder = make_colmap(tmp_path / "c")
    spoil(folder)
    with pytest.raises(BadInput, match=words) as caught:
        read_colmap(folder)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_every_cut_of_a_binary_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = make_colmap(tmp_path / "c", 2) / "sparse" / "0"
    whole = (folder / name).read_bytes()
    for length in range(len(whole)):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(BadInput, match=name):
            read_model(folder)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_noise_is_read_or_refused(tmp_path: Path, name: str) -> None:
    folder = make_colmap(tmp_path / "c", 2)
    path = folder / "sparse" / "0" / name
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        noisy = whole.copy()
        where = generator.integers(0, min(len(whole), 120), 3)
        noisy[where] = generator.integers(0, 256, 3)
        path.write_bytes(noisy.tobytes())
        try:
            read_colmap(folder)
        except BadInput:
            refused += 1
    assert refused > 30


BAD_TEXTS: list[tuple[str, str, Callable[[str], str], str]] = [
    ("word for a number", "images.txt", lambda t: t.replace("1 1.0", "1 one", 1), "images.txt is damaged"),
    ("line too short", "images.txt", lambda _: "1 1 0 0 0 0 0\n\n", "images.txt is damaged"),
    ("lines of observations left out", "images.txt", lambda t: "\n".join(t.split("\n")[1::2]), "does not list observ"),
    ("NaN", "images.txt", lambda t: t.replace("1 1.0", "1 nan", 1), "quaternion of length nan"),
    ("unknown model", "cameras.txt", lambda t: t.replace("PINHOLE", "FOV"), "the camera model FOV"),
    ("too few parameters", "cameras.txt", lambda t: t.replace(" 25.0", ""), "has 3 parameters, not 4"),
    ("huge number", "cameras.txt", lambda t: t.replace("64", "9" * 5000), "cameras.txt is damaged"),
    ("camera twice", "cameras.txt", lambda t: t + t, "lists camera 1 twice"),
    ("points that are none", "points3D.txt", lambda _: "1 2 three 4 5\n", "points3D.txt is damaged"),
    ("point id too large", "images.txt", lambda t: t.replace(" 7 ", f" {2**70} ", 1), "images.txt is damaged"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), [c[1:] for c in BAD_TEXTS], ids=[c[0] for c in BAD_TEXTS])
def test_bad_text_models_are_refused(tmp_path: Path, name: str, spoil: Callable[[str], str], words: str) -> None:
    folder = make_colmap(tmp_path / "c", binary=False)
    path = folder / "sparse" / "0" / name
    path.write_text(spoil(path.read_text()))
    with pytest.raises(BadInput, match=words):
        read_colmap(folder)


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    folder = make_colmap(tmp_path / "c")
    patch("points3D.bin", 8 + 8, "<d", float("nan"))(folder)
    capture = read_colmap(folder)
    assert capture.points is not None
    assert len(capture.points) == 29
    assert capture.frames[0].points is not None
    assert len(capture.frames[0].points) == 29


def test_differing_sizes_come_out_as_one(tmp_path: Path) -> None:
    """Images undistorted one by one differ by some pixels: each keeps its rays."""
    model = reconstruction(names := ["a1.png", "a2.png", "a3.png", "a4.png"])
    for index, name in enumerate(names):
        size = (64, 48) if index % 2 == 0 else (128, 96)
        (tmp_path / "c" / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "c" / "images" / name), picture(index, *size)[:, :, ::-1])
    (tmp_path / "c" / "sparse" / "0").mkdir(parents=True)
    model.write_binary(str(tmp_path / "c" / "sparse" / "0"))
    run, config = make_run(tmp_path / "run", tmp_path / "c")
    ingest_capture(run, config, recording()[0])
    document = read_transforms(run.capture)
    assert (document["w"], document["h"]) == (64, 48)
    assert {cv2.imread(str(run.capture / f["file_path"])).shape for f in document["frames"]} == {(48, 64, 3)}
    focal = [(f["fl_x"], f["fl_y"], f["cx"], f["cy"]) for f in frames_of(document, "train")]
    assert focal == [(50, 51, 32, 24), (50, 50, 32, 24)] * 2
