"""A procedural moving scene as a DyCheck sequence, for tests of the reader and of the evaluation protocol.

Camera 0 moves and trains; cameras 1 and 2 stand still and are held out at every third time, and the last frame of
camera 2 is missing, as badly synchronised frames are in the published data.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FACTOR = 2
FPS = 30.0
KEYPOINTS = 8
CENTRE, SCALE = (0.1, -0.2, 0.3), 0.25
CAMERAS = {"train": 0, "test_a": 1, "test_b": 2}


def write_dycheck(out: Path, source: Path) -> Path:
    """Write the capture `source`, made by `make_capture`, as a sequence to the new folder `out`.

    `source` becomes the images at factor 2; the full size is twice as large.
    """
    document = json.loads((source / "transforms.json").read_text())
    names = [_frame(source, out, document, frame) for frame in document["frames"][:-1]]
    train, val = ([n for n in names if (n[0] == "0") == training] for training in (True, False))
    for split, ids in (("train", train), ("val", val)):
        parallel = {"camera_ids": [int(n[0]) for n in ids], "time_ids": [int(n[2:]) for n in ids]}
        _json(out / f"splits/{split}.json", {"frame_names": ids, **parallel})
    _keypoints(source, out, document)
    every = {"count": len(names), "num_exemplars": len(train), "ids": names, "train_ids": train, "val_ids": val}
    _json(out / "dataset.json", every)
    warps = {n: {"warp_id": int(n[2:]), "appearance_id": int(n[2:]), "camera_id": int(n[0])} for n in names}
    _json(out / "metadata.json", warps)
    _json(out / "scene.json", {"center": list(CENTRE), "scale": SCALE, "near": 0.2, "far": 2.0})
    box = {"bbox": [[-1, -1, -1], [1, 1, 1]], "lookat": [0, 0, 0], "up": [0, 0, 1]}
    _json(out / "extra.json", {"factor": FACTOR, "fps": FPS, **box})
    return out


def holes(width: int, height: int, seed: int) -> np.ndarray:
    """(H, W) bool: where the LiDAR gave no point."""
    hole = np.random.default_rng(seed).random((height, width)) < 0.04
    hole[: height // 8, : width // 8] = True
    return hole


def world_pose(frame: dict[str, Any]) -> np.ndarray:
    """(4, 4) float64 OpenGL camera-to-world, exactly orthonormal, of an entry that `make_capture` wrote."""
    pose = np.array(frame["transform_matrix"], dtype=np.float64)
    left, _, right = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = left @ right
    return pose


def _frame(source: Path, out: Path, document: dict[str, Any], frame: dict[str, Any]) -> str:
    """Write everything of one frame; its id."""
    camera, time = (
        CAMERAS[Path(frame["file_path"]).stem[:-4]],
        round(frame["time"] * (len(document["train_filenames"]) - 1)),
    )
    name = f"{camera}_{time:05d}"
    pose = world_pose(frame)
    full = {
        "focal_length": FACTOR * document["fl_x"],
        "image_size": [FACTOR * document["w"], FACTOR * document["h"]],
        "orientation": (pose[:3, :3] @ np.diag([1, -1, -1])).T.tolist(),
        "position": pose[:3, 3].tolist(),
        "principal_point": [FACTOR * document["cx"], FACTOR * document["cy"]],
        "pixel_aspect_ratio": 1.0,
        "skew": 0.0,
        "radial_distortion": [0.0, 0.0, 0.0],
        "tangential_distortion": [0.0, 0.0],
    }
    _json(out / f"camera/{name}.json", full)
    bgr = cv2.imread(str(source / frame["file_path"]))
    hole = np.zeros(bgr.shape[:2], bool)
    if camera == 0:
        hole = holes(document["w"], document["h"], seed=time)
        depth = cv2.imread(str(source / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED) * 0.001
        _npy(out / f"depth/{FACTOR}x/{name}.npy", np.where(hole, 0, depth)[:, :, None].astype(np.float32))
    else:
        seen = cv2.imread(str(source / frame["covisible_path"]), cv2.IMREAD_GRAYSCALE)
        _png(out / f"covisible/{FACTOR}x/val/{name}.png", seen)
    rgba = np.dstack([np.where(hole[:, :, None], 0, bgr), np.where(hole, 0, 255)]).astype(np.uint8)
    _png(out / f"rgb/{FACTOR}x/{name}.png", rgba)
    _png(out / f"rgb/1x/{name}.png", np.repeat(np.repeat(rgba, FACTOR, 0), FACTOR, 1))
    return name


def _keypoints(source: Path, out: Path, document: dict[str, Any]) -> None:
    """Points of what stands still, from the true depth of the first frame, in every other training frame."""
    frames = [frame for frame in document["frames"] if frame["file_path"] in document["train_filenames"]][::2]
    moving = [cv2.imread(str(source / f["motion_mask_path"]), cv2.IMREAD_GRAYSCALE) > 0 for f in frames]
    depth = [cv2.imread(str(source / f["depth_file_path"]), cv2.IMREAD_UNCHANGED) * 0.001 for f in frames]
    focal, centre = (np.array([document[key] for key in pair]) for pair in (("fl_x", "fl_y"), ("cx", "cy")))
    height, width = depth[0].shape
    rows, columns = np.nonzero(~moving[0] & (depth[0] > 0))
    chosen = np.linspace(0, len(rows) - 1, KEYPOINTS).astype(int)
    pixels, z = np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5, depth[0][rows[chosen], columns[chosen]]
    rays = np.concatenate([(pixels - centre) / focal, np.ones((len(z), 1))], axis=1) * [1, -1, -1]
    pose = world_pose(frames[0])
    points = z[:, None] * rays @ pose[:3, :3].T + pose[:3, 3]
    for frame, still, surface in zip(frames, moving, depth, strict=True):
        pose = world_pose(frame)
        local = (points - pose[:3, 3]) @ pose[:3, :3] * [1, -1, -1]
        where = local[:, :2] / local[:, 2:] * focal + centre
        column, row = np.clip(where.astype(int), 0, [width - 1, height - 1]).T
        seen = ((where > 0) & (where < [width, height])).all(1) & ~still[row, column]
        seen &= np.abs(surface[row, column] - local[:, 2]) < 0.05 * local[:, 2]
        name = f"0_{round(frame['time'] * (len(document['train_filenames']) - 1)):05d}"
        _json(out / f"keypoint/{FACTOR}x/train/{name}.json", np.column_stack([where, seen]).tolist())
    _json(out / f"keypoint/{FACTOR}x/skeleton.json", {"name": "points", "parents": [-1] * KEYPOINTS})


def _json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def _png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def _npy(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
