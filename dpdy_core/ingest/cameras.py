"""Stage cameras: where each frame was taken from."""

from typing import Any

import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput
from dpdy_core.geometry.similarity import upright
from dpdy_core.ingest.camera_report import add_cameras
from dpdy_core.ingest.clip import frames_of, read_transforms, write_transforms
from dpdy_core.ingest.footage import INTRINSICS, Footage, footage_of, scratch_folder
from dpdy_core.ingest.pinhole import camera_to_world
from dpdy_core.ingest.second_masks import restore_masks
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.structure import NO_PARALLAX, Solution, find_cameras
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir

SCENE_DEPTH = 3.0  # median depth of the sparse points after scaling, in camera units
_SPLITS = ("train", "val", "test")


def solve_cameras(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Stage: `transform_matrix` and intrinsics of every frame that is used further on.

    Poses of the capture are kept as they are. Else they are found: `camera_motion` of the document is then `moving`
    (structure from motion), `turning` or `static`, and `camera_note` says what that costs. Held-out frames are placed
    against the finished result. What cannot be placed leaves its split, with a warning, unless
    `config.cameras.interpolate`. Raises CamerasFailed below `config.cameras.min_registered`, BadInput where poses are
    asked for that the capture lacks.
    """
    document = read_transforms(run.capture)
    train = frames_of(document, "train")
    restore_masks(train)  # redrawn ones come of cameras that were found before
    posed = [f for f in train if "transform_matrix" in f]
    source = config.cameras.source
    if source == "capture" and not posed:
        raise BadInput("the capture has no camera poses", "set cameras.source to auto or sfm to find them")
    if source == "sfm" or (source == "auto" and len(posed) < len(train)):
        if posed and source == "auto":
            reporter.fall_back(f"only {len(posed)} of {len(train)} training frames have poses: all are found anew")
        _find(run, config, document, reporter)
    elif np.ptp([np.array(f["transform_matrix"])[:3, 3] for f in posed], axis=0).max() < 1e-6:
        reporter.warn(f"the given camera stands in one place: {NO_PARALLAX}")
    if config.cameras.interpolate:
        _interpolate(document, reporter)
    _keep_posed(document, reporter)
    write_transforms(run.capture, document)
    add_cameras(run)


def _keep_posed(document: dict[str, Any], reporter: Reporter) -> None:
    """Take frames without a pose out of the splits."""
    with_pose = {f["file_path"] for f in document["frames"] if "transform_matrix" in f}
    for split in _SPLITS:
        names = document[f"{split}_filenames"]
        document[f"{split}_filenames"] = [name for name in names if name in with_pose]
        lost = len(names) - len(document[f"{split}_filenames"])
        if lost:
            reporter.warn(f"{lost} of {len(names)} {split} frames have no camera pose and are left out")


def _interpolate(document: dict[str, Any], reporter: Reporter) -> None:
    """Give training frames between two with a pose one between theirs, by time; `pose_interpolated` marks them.

    Held-out frames are never given a pose that nobody measured.
    """
    train = frames_of(document, "train")
    measured = [f for f in train if "transform_matrix" in f]
    times = np.array([f["time"] for f in measured])
    filled = 0
    for frame in train:
        after = int(np.searchsorted(times, frame["time"]))
        if "transform_matrix" in frame or not 0 < after < len(measured):
            continue
        share = (frame["time"] - times[after - 1]) / (times[after] - times[after - 1])
        one, two = (np.array(f["transform_matrix"], float) for f in (measured[after - 1], measured[after]))
        frame["transform_matrix"] = between(one, two, share).tolist()
        frame["pose_interpolated"] = True
        filled += 1
    if filled:
        reporter.fall_back(
            f"{filled} of {len(train)} training frames have a pose interpolated between their neighbours'"
        )


def between(one: np.ndarray, two: np.ndarray, share: float) -> np.ndarray:
    """The pose (4, 4) at `share` in [0, 1] of the way from `one` to `two`: straight, turning evenly about one axis."""
    turn, _ = cv2.Rodrigues(one[:3, :3].T @ two[:3, :3])
    pose = one + share * (two - one)
    pose[:3, :3] = one[:3, :3] @ cv2.Rodrigues(share * turn)[0]
    return pose


def _find(run: RunDir, config: RunConfig, document: dict[str, Any], reporter: Reporter) -> None:
    footage = footage_of(run.capture, document, config.cameras.max_size)
    with scratch_folder(run) as workspace:
        solution = find_cameras(footage, workspace, config, reporter)
    _adopt(run, document, footage, solution)
    placed = sum(name in solution.w2c for name in footage.train)
    numbers = {"registered": placed / len(footage.train), "focal_px": float(document["fl_x"])}
    if solution.model is not None:
        numbers |= {"reprojection_error_px": solution.model.reprojection_error, "points": len(solution.model.xyz)}
        if solution.model.focal_deviation is not None:
            numbers["focal_deviation"] = solution.model.focal_deviation
    reporter.step(1, 1, **numbers)


def _adopt(run: RunDir, document: dict[str, Any], footage: Footage, solution: Solution) -> None:
    """Put poses, intrinsics and sparse points, upright and scaled, into the capture."""
    c2w = {name: camera_to_world(pose) for name, pose in solution.w2c.items()}
    train = np.stack([c2w[name] for name in footage.train if name in c2w])
    seen = {} if solution.model is None else solution.model.observations
    points = np.zeros((0, 3)) if solution.model is None else solution.model.xyz
    depths = {
        name: points[index] @ solution.w2c[name][2, :3] + solution.w2c[name][2, 3] for name, (index, _) in seen.items()
    }
    world = upright(train, np.concatenate([np.zeros(0), *depths.values()]), SCENE_DEPTH)
    if solution.model is None:
        (run.capture / POINTS_FILE).unlink(missing_ok=True)
    else:  # points first: a killed stage must not leave poses without them
        SparsePoints(
            xyz=world.points(points),
            frames=[footage.frames[name]["file_path"] for name in seen],
            frame=np.concatenate([np.full(len(index), i) for i, (index, _) in enumerate(seen.values())]),
            point=np.concatenate([index for index, _ in seen.values()]),
            xy=np.concatenate([xy * footage.scale for _, xy in seen.values()]),
            depth=np.concatenate([depth * world.scale for depth in depths.values()]),
        ).save(run.capture / POINTS_FILE)
    for frame in document["frames"]:
        for key in ("transform_matrix", "pose_interpolated", *INTRINSICS):
            frame.pop(key, None)
    for name, pose in c2w.items():
        footage.frames[name]["transform_matrix"] = world.camera_to_world(pose[None])[0].tolist()
    k, (x, y) = solution.intrinsics, footage.scale
    document.pop("depth_range", None)  # it was in the unit of the capture's own poses
    document["pose_source"] = "sfm"  # found here: a stage that runs again must not take these intrinsics for given ones
    document["camera_motion"] = solution.motion
    document.pop("camera_note", None)
    document |= {"camera_note": solution.note} if solution.note else {}
    document.pop("focal_deviation", None)
    if solution.model is not None and solution.model.focal_deviation is not None:
        document["focal_deviation"] = solution.model.focal_deviation
    document |= {"fl_x": k.fx * x, "fl_y": k.fy * y, "cx": k.cx * x, "cy": k.cy * y}
