"""Stage ingest: the user's video, frames or posed capture becomes the canonical capture."""

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.config import IngestConfig, RunConfig
from dpdy_core.ingest.choice import Choice, frames_of_capture, frames_of_video
from dpdy_core.ingest.forecast import forecast
from dpdy_core.ingest.frames import SourceCapture, SourceFrame
from dpdy_core.ingest.images import canonical_suffix, verbatim_suffix, write_rgb
from dpdy_core.ingest.inspect import inspect_source
from dpdy_core.ingest.lens import undistortion
from dpdy_core.ingest.maps import convert_alpha, convert_depth, convert_mask, depth_step, write_map
from dpdy_core.ingest.metadata import focal_of_image, focal_of_tags
from dpdy_core.ingest.sandbox import SCRATCH, confined
from dpdy_core.ingest.selection import choose_evenly
from dpdy_core.ingest.size import fitted_size
from dpdy_core.ingest.source import open_source
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.ingest.video import Video, read_frames
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, folder_atomic, write_json

ASSUMED_FPS = 24.0
KEYPOINTS_FILE = "keypoints.json"
FEWEST_POINTS = 20  # a frame, on average, that sparse points of a capture must have to be kept
_MASKS = (
    ("mask_path", "mask", "masks"),
    ("motion_mask_path", "motion_mask", "motion_masks"),
    ("covisible_path", "covisible", "covisible"),
)


def ingest_capture(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Stage: write `capture/` from the input that the run was made for. Raises BadInput; then `capture/` is untouched.

    The work is done by a confined child process; whatever ends it, nothing unfinished stays.
    """
    _, path = run.read_config()
    try:
        remove_unfinished(run)
        confined(write_capture, run.root, path, config.ingest.model_dump(), reporter, scratch=run.root)
    finally:
        remove_unfinished(run)


def remove_unfinished(run: RunDir) -> None:
    """Remove what a killed process left of this stage."""
    for pattern in (f"{SCRATCH}*", f".{run.capture.name}.*.partial"):
        for left_by_a_kill in run.root.glob(pattern):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)


def write_capture(root: Path, path: Path, settings: dict[str, Any], reporter: Reporter) -> None:
    """Write `capture/` of the run in `root` from the input at `path`; `settings` are the fields of IngestConfig.

    The result is one pinhole image size without distortion, all frames timed and split, and `report.json`. Depth of
    the user is kept in its own unit under `user_depth/` for the depth stage.
    """
    run, config = RunDir(root), IngestConfig.model_validate(settings)
    with open_source(path, check=reporter.check) as source:
        report = inspect_source(source)
        for message in report["warnings"]:
            reporter.warn(message)
        with folder_atomic(run.capture) as folder:
            (folder / "images").mkdir()
            if isinstance(source, Video):
                document = _write_video(source, config, folder, reporter)
            else:
                document = _write_capture(source, config, folder, reporter)
            write_json(folder / run.transforms_file.name, document)
            report |= {"forecast": forecast(report), "chosen": _chosen(document)}
            write_json(folder / run.capture_report_file.name, report)


def _document(kind: str, size: tuple[int, int], fps: float, frames: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The canonical document of `frames` by split."""
    return {
        "camera_model": "OPENCV",
        "w": size[0],
        "h": size[1],
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "source": kind,
        "fps": fps,
        **{f"{split}_filenames": [f["file_path"] for f in frames.get(split, [])] for split in ("train", "val", "test")},
        "frames": [frame for split in ("train", "val", "test") for frame in frames.get(split, [])],
    }


def _chosen(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "train": len(document["train_filenames"]),
        "val": len(document["val_filenames"]),
        "test": len(document["test_filenames"]),
        "width": document["w"],
        "height": document["h"],
        "fps": document["fps"],
    }


def _write_video(video: Video, settings: IngestConfig, folder: Path, reporter: Reporter) -> dict[str, Any]:
    choice = frames_of_video(video, settings, reporter)
    chosen = sorted(choice.train + choice.test)
    size = fitted_size(video.width, video.height, settings.max_size)
    suffix = canonical_suffix(False, *size)
    frames: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for done, (index, rgb) in enumerate(read_frames(video, chosen, size), start=1):
        name = f"images/frame_{index:05d}{suffix}"
        write_rgb(folder / name, rgb)
        time = (video.times[index] - video.times[0]) / video.duration
        frames["test" if index in choice.test else "train"].append({"file_path": name, "time": float(time)})
        reporter.step(choice.looked + done, choice.looked + len(chosen))
    document = _document("video", size, (len(chosen) - 1) / video.duration, frames)
    return document | _focal_hint(focal_of_tags(video.tags))


def _focal_hint(millimetres: float | None) -> dict[str, float]:
    return {} if millimetres is None else {"focal_35mm": millimetres}


def _chosen_frames(
    source: SourceCapture, settings: IngestConfig, reporter: Reporter
) -> tuple[dict[str, list[SourceFrame]], int]:
    """The frames to store by split, and how many were looked at for it.

    Given test and val frames are all kept; given training frames are thinned evenly.
    """
    training = source.training_frames()
    if source.has_splits:
        choice = Choice(choose_evenly(range(len(training)), settings.max_frames), [])
    else:
        choice = frames_of_capture(source, training, settings, reporter)
    chosen = {
        "train": [training[i] for i in choice.train],
        "val": source.of_split("val"),
        "test": [training[i] for i in choice.test] + source.of_split("test"),
    }
    return chosen, choice.looked


def _write_capture(source: SourceCapture, settings: IngestConfig, folder: Path, reporter: Reporter) -> dict[str, Any]:
    chosen, looked = _chosen_frames(source, settings, reporter)
    everything = [frame for frames in chosen.values() for frame in frames]
    size = fitted_size(source.width, source.height, settings.max_size)
    stems = _stems(everything)
    depths = [frame.depth for frame in everything if frame.depth is not None]
    factor, unit = depth_step(depths, source.depth_unit)
    written: dict[str, dict[str, Any]] = {}
    for frame in everything:
        written[frame.name] = _write_frame(frame, stems[frame.name], source, size, factor, folder)
        reporter.step(looked + len(written), looked + len(everything))
    document = _document(
        source.kind,
        size,
        _rate(source, chosen),
        {split: [written[frame.name] for frame in frames] for split, frames in chosen.items()},
    )
    if depths:
        document |= {"user_depth_unit_scale_factor": unit, "user_depth_kind": source.depth_kind}
        document |= {"depth_kind": source.depth_kind}  # until the depth stage speaks of its own result
    if source.points is not None:
        _write_points(source, chosen["train"], written, size, folder)
    _write_keypoints(source, chosen["train"], written, size, folder)
    hint = _focal_hint(focal_of_image(everything[0].image))
    return document | source.facts | hint | _shared_intrinsics(document["frames"])


def _write_points(
    source: SourceCapture,
    frames: list[SourceFrame],
    written: dict[str, dict[str, Any]],
    size: tuple[int, int],
    folder: Path,
) -> None:
    """Keep the capture's sparse points, for depth to be aligned to; too few are left to be found anew."""
    seen = {}
    for frame in frames:
        if frame.points is not None and frame.pose is not None:
            entry = written[frame.name]
            intrinsics = (entry["fl_x"], entry["fl_y"], entry["cx"], entry["cy"])
            seen[entry["file_path"]] = (frame.points, frame.pose, intrinsics)
    if source.points is not None and sum(len(points) for points, *_ in seen.values()) >= FEWEST_POINTS * len(frames):
        SparsePoints.projected(source.points, seen, size).save(folder / POINTS_FILE)


def _write_keypoints(
    source: SourceCapture,
    frames: list[SourceFrame],
    written: dict[str, dict[str, Any]],
    size: tuple[int, int],
    folder: Path,
) -> None:
    """Keep annotated points of training frames beside the document, as only scores may look at them.

    Frames with a distorted lens lose theirs: no published sequence has both.
    """
    scale = np.array([size[0] / source.width, size[1] / source.height, 1.0])
    kept = {
        written[frame.name]["file_path"]: (frame.keypoints * scale).tolist()
        for frame in frames
        if frame.keypoints is not None and (frame.lens is None or not frame.lens.is_distorted)
    }
    annotated = sum(frame.keypoints is not None for frame in source.frames)
    if annotated:
        write_json(folder / KEYPOINTS_FILE, {"size": list(size), "annotated": annotated, "frames": kept})


def _rate(source: SourceCapture, chosen: dict[str, list[SourceFrame]]) -> float:
    """Frames per second at which the chosen frames play in real time (24 before thinning, if nothing is known)."""
    moments = {frame.time for frame in source.training_frames()}
    kept = {f.time for f in chosen["train"] + (chosen["test"] if not source.has_splits else [])}
    return (source.fps or ASSUMED_FPS) * max(len(kept) - 1, 1) / max(len(moments) - 1, 1)


def _write_frame(
    frame: SourceFrame, stem: str, source: SourceCapture, size: tuple[int, int], factor: float, folder: Path
) -> dict[str, Any]:
    """Store one frame and its maps undistorted at `size`; its entry in the canonical document."""
    original = frame.size or (source.width, source.height)
    mask = None if frame.mask is None else convert_mask(frame.mask, original, frame.lens)
    if source.alpha_is_mask and mask is None:
        mask = convert_alpha(frame.image, frame.lens)
    rgb = source.picture(frame)
    straight = frame.lens is None or not frame.lens.is_distorted
    if frame.lens is not None and not straight:
        x, y, valid = undistortion(frame.lens, *original)
        rgb = np.where(valid[:, :, None], cv2.remap(rgb, x, y, cv2.INTER_CUBIC), 0).astype(np.uint8)
        if mask is None and not valid.all():
            mask = np.where(valid, 255, 0).astype(np.uint8)
    verbatim = verbatim_suffix(frame.image) if straight and size == original else None
    name = f"images/{stem}{verbatim or canonical_suffix(source.lossless, *size)}"
    if verbatim:
        shutil.copyfile(frame.image, folder / name)
    else:
        write_rgb(folder / name, rgb if size == original else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    entry: dict[str, Any] = {"file_path": name, "time": frame.time}
    if frame.pose is not None:
        entry["transform_matrix"] = frame.pose.tolist()
    if frame.lens is not None:
        entry |= frame.lens.pinhole(size[0] / original[0], size[1] / original[1])
    for key, attribute, place in _MASKS:
        given: Path | None = getattr(frame, attribute)
        values = mask
        if attribute != "mask":
            values = None if given is None else convert_mask(given, original, frame.lens)
        if values is not None:
            entry[key] = f"{place}/{stem}.png"
            write_map(folder / entry[key], values, size)
    if frame.depth is not None:
        entry["user_depth_file_path"] = f"user_depth/{stem}.png"
        depth = convert_depth(frame.depth, factor, original, frame.lens)
        write_map(folder / entry["user_depth_file_path"], depth, size)
    return entry


def _stems(frames: list[SourceFrame]) -> dict[str, str]:
    """A file name without ending for each frame's name: its own where that is plain and unique."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for index, frame in enumerate(frames):
        own = re.sub(r"\.[A-Za-z]+$", "", frame.name).removeprefix("images/")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", own).strip("_")[:80]
        while not stem or stem.casefold() in taken:
            stem = f"{index:05d}_{stem}".strip("_")
        taken.add(stem.casefold())
        stems[frame.name] = stem
    return stems


def _shared_intrinsics(frames: list[dict[str, Any]]) -> dict[str, float]:
    """The first frame's intrinsics for the whole document; frames keep their own only if they differ."""
    keys = ("fl_x", "fl_y", "cx", "cy")
    if not all(key in frame for frame in frames for key in keys):
        return {}
    shared = {key: frames[0][key] for key in keys}
    if all(frame[key] == shared[key] for frame in frames for key in keys):
        for frame in frames:
            for key in keys:
                del frame[key]
    return shared
