"""Stage cameras: where each frame was taken from."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, CamerasFailed, JobFailed
from dpdy_core.geometry.similarity import upright
from dpdy_core.ingest.clip import fitted_size, frames_of, read_image, read_mask, read_transforms, write_transforms
from dpdy_core.ingest.pinhole import camera_to_world
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.sparse_model import FIRST, SECOND, Attempt, Evidence, Intrinsics, SparseModel
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir

SCENE_DEPTH = 3.0  # median depth of the sparse points after scaling, in camera units
ORDERED_FRAMES = 60  # longer clips are matched along time, not all pairs
OVERLAP = 12
LOCALISE_NEIGHBOURS = 24  # training frames that a held-out frame is compared with
ALL_PAIRS_FRAMES = 200
_SPLITS = ("train", "val", "test")
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy")


def solve_cameras(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Stage: `transform_matrix` and intrinsics of every frame that is used further on.

    Poses of the capture are kept as they are. Else COLMAP finds those of the training frames; held-out frames are then
    placed against the finished model. What cannot be placed leaves its split, with a warning. Raises CamerasFailed
    below `config.cameras.min_registered`, BadInput where poses are asked for that the capture lacks.
    """
    document = read_transforms(run.capture)
    train = frames_of(document, "train")
    posed = [f for f in train if "transform_matrix" in f]
    source = config.cameras.source
    if source == "capture" and not posed:
        raise BadInput("the capture has no camera poses", "set cameras.source to auto or sfm to find them")
    if source == "capture" or (source == "auto" and len(posed) == len(train)):
        _keep_posed(document, reporter)
        write_transforms(run.capture, document)
        return
    if posed and source == "auto":
        reporter.fall_back(f"only {len(posed)} of {len(train)} training frames have poses: all are found anew")
    _structure_from_motion(run, config, document, reporter)


def _keep_posed(document: dict[str, Any], reporter: Reporter) -> None:
    """Take frames without a pose out of the splits."""
    with_pose = {f["file_path"] for f in document["frames"] if "transform_matrix" in f}
    for split in _SPLITS:
        names = document[f"{split}_filenames"]
        document[f"{split}_filenames"] = [name for name in names if name in with_pose]
        lost = len(names) - len(document[f"{split}_filenames"])
        if lost:
            reporter.warn(f"{lost} of {len(names)} {split} frames have no camera pose and are left out")


def _structure_from_motion(run: RunDir, config: RunConfig, document: dict[str, Any], reporter: Reporter) -> None:
    # pycolmap is a heavy optional dependency that some GPU hosts lack: captures with poses must run without it.
    try:
        from dpdy_core.ingest import sfm
    except ImportError as error:
        raise JobFailed(
            f"the capture has no camera poses and pycolmap, which finds them, cannot be loaded: {error}",
            "pip install pycolmap, or give a capture with camera poses",
        ) from error

    train = frames_of(document, "train")
    held_out = frames_of(document, "val") + frames_of(document, "test")
    full = (int(document["w"]), int(document["h"]))
    size = fitted_size(*full, config.cameras.max_size)
    with _workspace(run) as workspace:
        names = {f["file_path"]: f"{i:05d}.png" for i, f in enumerate(train + held_out)}
        moving = _write_images(run.capture, workspace, names, train, held_out, size, reporter)
        known = _known_intrinsics(document, size)
        order = [names[f["file_path"]] for f in train]
        first = replace(FIRST, overlap=None if len(train) <= ORDERED_FRAMES else OVERLAP)
        second = replace(SECOND, masked=moving < 0.5, overlap=None if len(train) <= ALL_PAIRS_FRAMES else 2 * OVERLAP)
        model, evidence = sfm.reconstruct(workspace, order, known, first, config.seed, reporter.check)
        used = first
        reporter.step(2, 4, registered=_share(model, train))
        if _share(model, train) < max(config.cameras.min_registered, 0.9):
            again, more = sfm.reconstruct(workspace, order, known, second, config.seed, reporter.check)
            if _share(again, train) >= _share(model, train):
                model, evidence, used = again, more, second
        reporter.step(3, 4, registered=_share(model, train))
        share = _share(model, train)
        if model is None or share < config.cameras.min_registered:
            raise _failure(share, evidence, moving, config)
        poses = model.w2c | _localise(model, names, train, held_out, used, config.seed, reporter)
        scale = np.array(full) / np.array(size)
        _adopt(run, document, {name: poses[key] for name, key in names.items() if key in poses}, model, names, scale)
        _keep_posed(document, reporter)
        write_transforms(run.capture, document)
        reporter.step(
            4,
            4,
            registered=share,
            reprojection_error_px=model.reprojection_error,
            focal_px=model.intrinsics.fx * scale[0],
            points=len(model.xyz),
        )


def _share(model: SparseModel | None, train: list[dict[str, Any]]) -> float:
    return 0.0 if model is None else len(model.w2c) / len(train)


@contextmanager
def _workspace(run: RunDir) -> Iterator[Path]:
    """A scratch folder inside the run that is gone afterwards; what a killed run left is removed first."""
    folder = run.root / ".sfm.partial"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_images(
    capture: Path,
    workspace: Path,
    names: dict[str, str],
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
    size: tuple[int, int],
    reporter: Reporter,
) -> float:
    """Images at `size`, and for the training frames masks of what stands still; the mean share that moves."""
    shares = []
    reach = max(3, round(0.01 * max(size)))
    grow = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    for frame in train + held_out:
        reporter.check()
        rgb = read_image(capture / frame["file_path"], size)
        cv2.imwrite(str(workspace / "images" / names[frame["file_path"]]), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    for frame in train:
        ignore = np.zeros((size[1], size[0]), bool)
        if "motion_mask_path" in frame:
            moving = read_mask(capture / frame["motion_mask_path"], size)
            shares.append(moving.mean())
            ignore |= cv2.dilate(moving.astype(np.uint8), grow) > 0  # features reach beyond their centre
        if "mask_path" in frame:
            ignore |= ~read_mask(capture / frame["mask_path"], size)
        mask = np.where(ignore, 0, 255).astype(np.uint8)
        cv2.imwrite(str(workspace / "masks" / f"{names[frame['file_path']]}.png"), mask)
    reporter.step(1, 4)
    return float(np.mean(shares)) if shares else 0.0


def _known_intrinsics(document: dict[str, Any], size: tuple[int, int]) -> Intrinsics | None:
    if document.get("pose_source") == "sfm" or not all(key in document for key in _INTRINSICS):
        return None
    x, y = size[0] / float(document["w"]), size[1] / float(document["h"])
    fx, fy, cx, cy = (float(document[key]) for key in _INTRINSICS)
    return Intrinsics(fx * x, fy * y, cx * x, cy * y)


def _failure(share: float, evidence: Evidence, moving: float, config: RunConfig) -> CamerasFailed:
    """Name the likeliest cause."""
    if evidence.features < 200:
        cause = f"few features (median {evidence.features:.0f} an image): low texture, blur or darkness"
        remedy = "use a sharper, brighter or more textured video, or give camera poses"
    elif evidence.verified < max(1, evidence.pairs // 10):
        cause = f"few frame pairs match ({evidence.verified} of {evidence.pairs}): the view changes too fast"
        remedy = "use more frames (ingest.max_frames) or a slower camera, or give camera poses"
    elif moving > 0.5:
        cause = f"most of the picture moves ({moving:.0%})"
        remedy = "film with more of the still surroundings in view, or give motion masks or camera poses"
    else:
        cause = (
            f"too little parallax ({evidence.rigid_share:.0%} of the frame pairs show none): the camera hardly moves"
        )
        remedy = "move the camera sideways while filming, or give camera poses"
    return CamerasFailed(
        f"{share:.0%} of the training frames could be placed, {config.cameras.min_registered:.0%} are needed; {cause}",
        remedy,
    )


def _localise(
    model: SparseModel,
    names: dict[str, str],
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
    attempt: Attempt,
    seed: int,
    reporter: Reporter,
) -> dict[str, np.ndarray]:
    """Poses of held-out frames, each compared with training frames near in time and some from all over the clip."""
    from dpdy_core.ingest import sfm  # heavy: see _structure_from_motion

    registered = [f for f in train if names[f["file_path"]] in model.w2c]
    every = max(1, len(registered) // (LOCALISE_NEIGHBOURS // 2))
    spread = [names[f["file_path"]] for f in registered[::every]]
    queries = {}
    for frame in held_out:
        near = sorted(registered, key=lambda f: abs(f["time"] - frame["time"]))[: LOCALISE_NEIGHBOURS // 2]
        queries[names[frame["file_path"]]] = list(dict.fromkeys([names[f["file_path"]] for f in near] + spread))
    return sfm.localise(model, queries, attempt, seed, reporter.check)


def _adopt(
    run: RunDir,
    document: dict[str, Any],
    poses: dict[str, np.ndarray],
    model: SparseModel,
    names: dict[str, str],
    scale: np.ndarray,
) -> None:
    """Put poses, intrinsics and sparse points, upright and scaled, into the capture. Points first: a killed stage must
    not leave poses without them.
    """
    seen = {name: model.observations[key] for name, key in names.items() if key in model.w2c}
    depths = {name: model.xyz[index] @ poses[name][2, :3] + poses[name][2, 3] for name, (index, _) in seen.items()}
    c2w = {name: camera_to_world(pose) for name, pose in poses.items()}
    world = upright(np.stack([c2w[name] for name in seen]), np.concatenate(list(depths.values())), SCENE_DEPTH)
    frames = list(seen)
    SparsePoints(
        xyz=world.points(model.xyz),
        frames=frames,
        frame=np.concatenate([np.full(len(seen[name][0]), i) for i, name in enumerate(frames)]),
        point=np.concatenate([seen[name][0] for name in frames]),
        xy=np.concatenate([seen[name][1] * scale for name in frames]),
        depth=np.concatenate([depths[name] * world.scale for name in frames]),
    ).save(run.capture / POINTS_FILE)
    for frame in document["frames"]:
        for key in ("transform_matrix", *_INTRINSICS):
            frame.pop(key, None)
        if frame["file_path"] in c2w:
            frame["transform_matrix"] = world.camera_to_world(c2w[frame["file_path"]][None])[0].tolist()
    k = model.intrinsics
    document.pop("depth_range", None)  # it was in the unit of the capture's own poses
    document["pose_source"] = "sfm"  # a stage that runs again must not take these intrinsics for given ones
    document |= {"fl_x": k.fx * scale[0], "fl_y": k.fy * scale[1], "cx": k.cx * scale[0], "cy": k.cy * scale[1]}
