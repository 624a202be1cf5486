import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ingest_samples import make_run, recording

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.clip import load_clip, load_given_depth, read_transforms
from dpdy_core.ingest.dycheck import read_dycheck
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.output.keypoints import read_keypoints
from dpdy_core.progress import Reporter
from dpdy_core.synth.capture import make_capture
from tests.dycheck_writer import CENTRE, FACTOR, FPS, KEYPOINTS, SCALE, holes, world_pose, write_dycheck

FRAMES, WIDTH, HEIGHT = 6, 24, 32


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene in nerfstudio's format."""
    out = tmp_path_factory.mktemp("truth") / "capture"
    make_capture(out, "rigid", FRAMES, WIDTH, HEIGHT, 0, Reporter())
    return out


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, truth: Path) -> Path:
    return write_dycheck(tmp_path_factory.mktemp("dycheck") / "apple", truth)


@pytest.fixture
def sequence(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "apple"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def entries(truth: Path) -> dict[str, dict[str, Any]]:
    """The true frames by DyCheck's ids."""
    cameras = {"train": 0, "test_a": 1, "test_b": 2}
    frames = json.loads((truth / "transforms.json").read_text())["frames"]
    return {f"{cameras[Path(f['file_path']).stem[:-4]]}_{Path(f['file_path']).stem[-3:].zfill(5)}": f for f in frames}


def test_poses_intrinsics_times_and_depth_are_the_written_ones(written: Path, truth: Path) -> None:
    capture, true = read_dycheck(written), entries(truth)
    assert (capture.kind, capture.width, capture.height, capture.fps) == ("dycheck", WIDTH, HEIGHT, FPS)
    assert [f.name for f in capture.training_frames()] == [f"0_{t:05d}" for t in range(FRAMES)]
    assert sorted(f.name for f in capture.of_split("test")) == ["1_00000", "1_00005", "2_00000"]  # no grid
    for frame in capture.frames:
        expected = world_pose(true[frame.name])
        expected[:3, 3] = (expected[:3, 3] - CENTRE) * SCALE
        assert frame.pose is not None
        assert frame.lens is not None
        assert np.abs(frame.pose - expected).max() < 1e-6
        document = json.loads((truth / "transforms.json").read_text())
        assert frame.lens.fl_x == pytest.approx(document["fl_x"], abs=1e-6)
        assert (frame.lens.cx, frame.lens.cy) == pytest.approx((document["cx"], document["cy"]), abs=1e-6)
        assert frame.time == pytest.approx(true[frame.name]["time"], abs=1e-6)
        assert (frame.covisible is None) == (frame.split == "train")
        assert (frame.depth is None) == (frame.split == "test")
        if frame.depth is not None:
            millimetres = cv2.imread(str(truth / true[frame.name]["depth_file_path"]), cv2.IMREAD_UNCHANGED)
            seen = ~holes(WIDTH, HEIGHT, int(frame.name[2:]))
            assert np.abs(frame.depth.read() - millimetres * 0.001 * seen).max() < 1e-6
    assert capture.depth_unit == SCALE


def test_canonical_capture(sequence: Path, truth: Path, tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", sequence)
    ingest_capture(run, config, recording()[0])
    document, true = read_transforms(run.capture), entries(truth)
    assert (document["source"], document["fps"]) == ("dycheck", FPS)
    assert document["dycheck"] == {"factor": FACTOR, "scene_center": list(CENTRE), "scene_scale": SCALE}
    assert len(document["test_filenames"]) == 3
    train, test = (load_clip(run.capture, split, 4096) for split in ("train", "test"))
    assert train is not None
    assert test is not None
    hole = np.stack([holes(WIDTH, HEIGHT, t) for t in range(FRAMES)])
    assert np.array_equal(~train.valid.numpy(), hole)
    assert test.valid.all()
    depth = load_given_depth(run.capture, train)
    assert depth is not None
    for i in range(FRAMES):
        frame = true[f"0_{i:05d}"]
        expected = cv2.imread(str(truth / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED) * 0.001 * SCALE
        step = expected.max() / 65535  # 16 bits
        assert np.abs(depth[i].numpy() - np.where(hole[i], 0, expected)).max() < step
        picture = cv2.imread(str(truth / frame["file_path"]))[:, :, ::-1]
        assert np.array_equal(train.images[i].numpy()[~hole[i]], picture[~hole[i]])
        scattered = hole[i].copy()
        scattered[: HEIGHT // 8, : WIDTH // 8] = False  # a hole of one pixel looks like what is around it
        assert np.abs(train.images[i].numpy()[scattered].astype(int) - picture[scattered]).mean() < 25
    assert test.covisible is not None
    for i, name in enumerate(test.names):
        seen = cv2.imread(str(truth / true[Path(name).stem]["covisible_path"]), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(test.covisible[i].numpy(), seen > 0)


def test_keypoints_are_kept_for_scores_alone(sequence: Path, tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", sequence)
    ingest_capture(run, config, recording()[0])
    train = load_clip(run.capture, "train", HEIGHT // 2)
    assert train is not None
    found = read_keypoints(run.capture, train)
    assert found is not None
    assert (found.frames, found.annotated, found.pixels.shape) == ([0, 2, 4], 3, (3, KEYPOINTS, 2))
    assert "keypoint" not in json.dumps(read_transforms(run.capture))
    for place, name in enumerate(("0_00000", "0_00002", "0_00004")):
        rows = np.array(json.loads((sequence / f"keypoint/2x/train/{name}.json").read_text()))
        assert np.abs(found.pixels[place].numpy() - rows[:, :2] / 2).max() < 1e-6  # the clip has half the size
        assert found.visible[place].tolist() == (rows[:, 2] > 0).tolist()
    assert found.visible.float().mean() > 0.5


def test_inspection_tells_what_there_is(written: Path) -> None:
    report = inspect_input(written)
    assert (report["kind"], report["splits"]) == ("dycheck", {"train": FRAMES, "val": 0, "test": 3})
    assert report["has_poses"]
    assert report["has_depth"]


def test_nerfies_sequence_without_depth_masks_or_extras(sequence: Path) -> None:
    for name in ("depth", "covisible", "splits", "extra.json"):
        shutil.rmtree(sequence / name) if (sequence / name).is_dir() else (sequence / name).unlink()
    capture = read_dycheck(sequence)
    assert (capture.width, capture.fps) == (WIDTH, None)  # factor 2 as the benchmark evaluates
    assert not any(frame.depth or frame.covisible for frame in capture.frames)
    assert len(capture.of_split("test")) == 3


def test_factor_of_the_extras_wins(sequence: Path) -> None:
    edit(sequence / "extra.json", lambda d: d.update(factor=1))
    capture = read_dycheck(sequence)
    assert (capture.width, capture.height) == (2 * WIDTH, 2 * HEIGHT)
    assert capture.frames[0].lens is not None
    assert capture.frames[0].lens.cx == pytest.approx(WIDTH)


def test_without_val_frames_there_are_no_splits(sequence: Path) -> None:
    (sequence / "splits/val.json").unlink()
    capture = read_dycheck(sequence)
    assert not capture.has_splits
    assert len(capture.frames) == FRAMES


def test_times_beyond_training_are_kept_in_range(sequence: Path) -> None:
    edit(sequence / "metadata.json", lambda d: d["1_00005"].update(warp_id=10))
    capture = read_dycheck(sequence)
    times = {frame.name: frame.time for frame in capture.frames}
    assert times["1_00005"] == 1
    assert times["0_00005"] == pytest.approx(0.5)
    assert any("after the last training frame" in warning for warning in capture.warnings)


def test_lens_distortion_and_aspect_reach_the_lens(sequence: Path) -> None:
    def bend(camera: dict[str, Any]) -> None:
        camera.update(radial_distortion=[0.1, 0.02, 0.003], tangential=[0.004, 0.005], pixel_aspect_ratio=1.25)

    edit(sequence / "camera/0_00000.json", bend)
    lens = read_dycheck(sequence).frames[0].lens
    assert lens is not None
    assert lens.distortion == (0.1, 0.02, 0.004, 0.005, 0.003)
    assert lens.fl_y == pytest.approx(1.25 * lens.fl_x)


def camera(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "camera/0_00001.json", lambda d: d.update(values))


def document(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, change)


def depth(values: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "depth/2x/0_00001.npy", values, allow_pickle=True)


def keypoints(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "keypoint/2x/train/0_00002.json").write_text(text) and None


def rename_a_frame(folder: Path) -> None:
    """An id that leaves the folder."""
    outside = "../../outside"
    for name in ("dataset.json", "splits/train.json"):
        path = folder / name
        path.write_text(path.read_text().replace("0_00001", outside))


def lying_npy(folder: Path) -> None:
    """A header that tells of more than the file holds."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (32000, 24000), }".ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (folder / "depth/2x/0_00001.npy").write_bytes(data + bytes(64))


REFUSED: list[tuple[str, Callable[[Path], None], str]] = [
    ("missing image", lambda f: (f / "rgb/2x/0_00001.png").unlink(), "0_00001.png.*missing"),
    ("missing camera", lambda f: (f / "camera/1_00000.json").unlink(), "1_00000.json.*missing"),
    ("missing metadata entry", document("metadata.json", lambda d: d.pop("0_00002")), "no entry for frame '0_00002'"),
    ("no metadata", lambda f: (f / "metadata.json").unlink(), "metadata.json.*missing"),
    ("NaN position", camera(position=[0, float("nan"), 0]), "position of camera/0_00001.json is nan"),
    ("orientation of numbers only", camera(orientation=[1, 2, 3]), "orientation"),
    ("not a rotation", camera(orientation=[[1, 0, 0], [0, 2, 0], [0, 0, 1]]), "camera/0_00001.json is not a rotation"),
    ("mirrored", camera(orientation=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]]), "mirrors"),
    ("skew", camera(skew=2.0), "skew 2"),
    ("no focal length", camera(focal_length=0), "no focal length"),
    ("lying image size", camera(image_size=[7200, 9600]), "image_size 7200x9600"),
    ("another scale of image", lambda f: shutil.copy(f / "rgb/1x/0_00001.png", f / "rgb/2x/0_00001.png"), "48x64"),
    ("id leaving the folder", rename_a_frame, "leaves the capture"),
    ("frame in both splits", document("splits/val.json", lambda d: d["frame_names"].__setitem__(0, "0_00001")), "both"),
    ("unknown frame", document("splits/val.json", lambda d: d["frame_names"].__setitem__(0, "7_00001")), "7_00001"),
    ("lists not parallel", document("splits/train.json", lambda d: d["time_ids"].pop()), "list of 6 ids"),
    ("one moment", document("metadata.json", lambda d: [e.update(warp_id=3) for e in d.values()]), "same warp_id"),
    ("time is text", document("metadata.json", lambda d: d["0_00001"].update(warp_id="1")), "warp_id"),
    ("scale zero", document("scene.json", lambda d: d.update(scale=0)), "scale of scene.json is 0"),
    ("huge factor", document("extra.json", lambda d: d.update(factor=10**400)), "factor"),
    ("dataset is a list", lambda f: (f / "dataset.json").write_text("[]"), "not a JSON object"),
    ("deep JSON", lambda f: (f / "scene.json").write_text("[" * 10**6), "not valid JSON"),
    ("pickled depth", depth(np.array([[print]], dtype=object)), "0_00001.npy is not a depth map"),
    ("depth of another shape", depth(np.ones((20, 30), np.float32)), "30x20 pixels, another shape"),
    ("depth header lies", lying_npy, "0_00001.npy is not a depth map"),
    ("keypoints are an object", keypoints("{}"), "not a JSON list"),
    ("keypoint without a flag", keypoints("[[1, 2]]"), "not a list of 3 numbers"),
    ("NaN keypoint", keypoints("[[1, NaN, 1]]"), "not a finite number"),
    ("no keypoint", keypoints("[]"), "has 0 points"),
    ("a keypoint missing", keypoints("[[1, 2, 1]]"), "different numbers of keypoints"),
    ("no images", lambda f: shutil.rmtree(f / "rgb"), "no images"),
]


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_unusable_sequences_are_refused(
    sequence: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(sequence)
    run, config = make_run(tmp_path / "run", sequence)
    with pytest.raises(BadInput, match=words) as caught:
        ingest_capture(run, config, recording()[0])
    assert caught.value.remedy
    assert [path.name for path in run.root.iterdir()] == ["config.json"]


def test_a_link_out_of_the_sequence_is_refused(sequence: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (sequence / "camera/0_00001.json").unlink()
    (sequence / "camera/0_00001.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match="link that leaves"):
        inspect_input(sequence)
