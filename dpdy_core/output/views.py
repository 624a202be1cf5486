"""The render stage: every camera path as three videos, colour, depth and what no frame saw."""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpdy_core.config import PATH_NAMES, RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.geometry import paths
from dpdy_core.geometry.path_file import camera_path_document, read_camera_path
from dpdy_core.geometry.paths import Trajectory
from dpdy_core.ingest.clip import Clip, load_clip, read_transforms
from dpdy_core.ingest.size import fitted_size
from dpdy_core.optimise.camera_corrections import refined
from dpdy_core.optimise.checkpoint import load_scene
from dpdy_core.output.video import (
    depth_colours,
    disparity_range,
    mask_colours,
    open_video,
    to_bytes,
    write_jpeg,
)
from dpdy_core.progress import Reporter
from dpdy_core.render.renderer import Rendering, render_camera
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.rundir import RunDir, read_json, write_atomic, write_json
from dpdy_core.runtime import resolve_device
from dpdy_core.scene.scene import Scene

PARTS = ("", "_depth", "_invented")  # of a path's video files, before `.mp4`
WITNESS_SIDE = 128  # longer side of the depth maps that tell what the training frames saw, pixels
PROBES, PROBE_SIDE = 12, 48  # frames and longer side of the quick renders that find the range of depths


@dataclass(frozen=True)
class Studio:
    """What all paths of one run are rendered with."""

    scene: Scene
    train: Clip
    seen: TrainingViews
    depth: float  # typical planar depth of the scene, in camera units
    fps: float
    frames: int  # of the paths that have no length of their own
    chunk: int
    device: torch.device


def render_views(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Write `renders/<path>.mp4`, `_depth.mp4`, `_invented.mp4`, `.json` and a poster for each path of the config.

    Paths that are finished for this scene and these settings are kept. Raises BadInput for a broken camera path.
    """
    if not config.render.paths:
        return
    studio = open_studio(run, config, reporter)
    trajectories: dict[str, Trajectory] = {}
    for name in dict.fromkeys(config.render.paths):
        trajectory = _trajectory(name, run, config, studio)
        if trajectory is None:
            reporter.warn("the capture has no test views: the path `test` is left out")
            continue
        if (stem := _file_stem(name)) in trajectories:
            raise BadSettings(f"two camera paths would both be called {stem}", "rename one of the files")
        trajectories[stem] = _fitted(trajectory, config.render.width)
    todo = {name: t for name, t in trajectories.items() if not _is_finished(run, name, t)}
    total = sum(map(len, trajectories.values()))
    done = total - sum(map(len, todo.values()))
    for name, trajectory in todo.items():
        _make(run, name, studio, trajectory, reporter, done, total)
        done += len(trajectory)


def render_path(
    run: RunDir,
    config: RunConfig,
    path: str,
    fps: float | None,
    width: int | None,
    out: Path | None,
    reporter: Reporter,
) -> list[Path]:
    """Render one more path, named or a camera-path file, from a finished run; the three videos written.

    `out` is the colour video (default `renders/<path>.mp4`); depth and invented lie beside it.
    """
    if out is not None and out.suffix.lower() != ".mp4":
        raise BadSettings(f"{out.name} does not end in .mp4", "name the video to write, for example orbit.mp4")
    render = config.render.model_copy(update={"fps": fps or config.render.fps, "width": width or config.render.width})
    config = config.model_copy(update={"render": render})
    studio = open_studio(run, config, reporter)
    trajectory = _trajectory(path, run, config, studio)
    if trajectory is None:
        raise BadInput("the capture has no test views", "render another path")
    trajectory = _fitted(replace(trajectory, fps=fps or trajectory.fps), config.render.width)
    if out is None:
        video = _make(run, _file_stem(path), studio, trajectory, reporter, 0, len(trajectory))
    else:
        video = out
        render_trajectory(studio, trajectory, video, reporter, 0, len(trajectory))
    return [part_file(video, part) for part in PARTS]


def open_studio(run: RunDir, config: RunConfig, reporter: Reporter) -> Studio:
    """Load the scene and the training frames and measure the scene's typical depth."""
    device = resolve_device(config.device)
    train = load_clip(run.capture, "train", config.scene.max_size)
    if train is None:
        raise BadInput("no training frame has a camera pose", "run the stage `cameras` first")
    train = refined(train.to(device), run.scene)
    scene = load_scene(run.scene, device, reporter.fall_back)
    witnesses = witness_depths(scene, train, config.render.chunk, reporter.check)
    fps = config.render.fps or capture_fps(read_transforms(run.capture), len(train))
    return Studio(
        scene=scene,
        train=train,
        seen=TrainingViews(train, scene, witnesses),
        depth=float(witnesses.median()),
        fps=fps,
        frames=max(2, round(config.render.seconds * fps)),
        chunk=config.render.chunk,
        device=device,
    )


def witness_depths(scene: Scene, train: Clip, chunk: int, check: Callable[[], None]) -> torch.Tensor:
    """(T, H, W) depth of the scene in the training views, in a small size: the surfaces that the frames saw.

    The scene's own depth, not the capture's: a surface that the scene puts a little too far away was still seen.
    """
    longer = max(train.cameras.width, train.cameras.height)
    size = fitted_size(
        train.cameras.width, train.cameras.height, min(WITNESS_SIDE, max(WITNESS_SIDE // 2, longer // 2))
    )
    cameras = train.cameras.resized(*size)
    return torch.stack(
        [render_camera(scene, cameras, i, time, chunk, check).depth for i, time in enumerate(train.times.tolist())]
    )


def capture_fps(document: dict[str, Any], frames: int) -> float:
    """The capture's own frame rate; if it has none, that which makes it last three seconds, from 10 to 30."""
    fps = document.get("fps")
    return float(fps) if fps else float(min(30, max(10, round(frames / 3))))


def probe_depths(scene: Scene, trajectory: Trajectory, chunk: int) -> list[torch.Tensor]:
    """Depth maps of a few small renders spread over the whole trajectory."""
    count = min(PROBES, len(trajectory))
    width, height = trajectory.cameras.width, trajectory.cameras.height
    scale = min(1.0, PROBE_SIDE / max(width, height))
    cameras = trajectory.cameras.resized(max(1, round(width * scale)), max(1, round(height * scale)))
    chosen = torch.linspace(0, len(trajectory) - 1, count).round().long().tolist()
    times = trajectory.times.tolist()
    return [surface_depth(render_camera(scene, cameras, i, times[i], chunk)) for i in chosen]


def surface_depth(rendering: Rendering) -> torch.Tensor:
    """(H, W) planar depth, 0 where more than half of the light comes from no surface."""
    return torch.where(rendering.opacity > 0.5, rendering.depth, torch.zeros_like(rendering.depth))


def _make(
    run: RunDir, name: str, studio: Studio, trajectory: Trajectory, reporter: Reporter, done: int, total: int
) -> Path:
    """Write the path's videos, poster and record into the run; the record comes last and marks it as finished."""
    video = run.renders / f"{name}.mp4"
    video.with_suffix(".json").unlink(missing_ok=True)
    picture = render_trajectory(studio, trajectory, video, reporter, done, total)
    poster = run.previews / f"{name}.jpg"
    write_atomic(poster, partial(write_jpeg, picture=picture))
    reporter.preview(poster.relative_to(run.root).as_posix())
    write_json(
        video.with_suffix(".json"), {"fingerprint": _fingerprint(run, trajectory), **camera_path_document(trajectory)}
    )
    return video


def render_trajectory(
    studio: Studio, trajectory: Trajectory, video: Path, reporter: Reporter, done: int, total: int
) -> np.ndarray:
    """Write the three videos of one path; `done` of `total` frames were rendered before.

    Returns the picture (H, W, 3) uint8 after a quarter of the path, where a swing is widest.
    """
    trajectory = Trajectory(trajectory.cameras.to(studio.device), trajectory.times.to(studio.device), trajectory.fps)
    low, high = disparity_range(probe_depths(studio.scene, trajectory, studio.chunk))
    times = trajectory.times.tolist()
    with ExitStack() as stack:
        colour, depth, invented = (
            stack.enter_context(open_video(part_file(video, part), trajectory.fps)) for part in PARTS
        )
        for index, time in enumerate(times):
            rendering = render_camera(studio.scene, trajectory.cameras, index, time, studio.chunk, check=reporter.check)
            picture = to_bytes(rendering.colour)
            if index == len(times) // 4:
                poster = picture
            colour(picture)
            depth(depth_colours(surface_depth(rendering), low, high))
            invented(mask_colours(~_seen(studio, trajectory, index, time, rendering)))
            reporter.step(done + index + 1, total)
    return poster


def part_file(video: Path, part: str) -> Path:
    """The file of `part` (see PARTS) beside the colour video."""
    return video.with_name(f"{video.stem}{part}{video.suffix}")


def _seen(studio: Studio, trajectory: Trajectory, index: int, time: float, rendering: Rendering) -> torch.Tensor:
    """(H, W) bool: some training frame saw the surface in this pixel."""
    origins, directions = trajectory.cameras.image_rays(index)
    seen = studio.seen.seen(
        origins.reshape(-1, 3), directions.reshape(-1, 3), rendering.depth.flatten(), rendering.dynamic.flatten(), time
    )
    return seen.reshape(rendering.depth.shape)


def _trajectory(name: str, run: RunDir, config: RunConfig, studio: Studio) -> Trajectory | None:
    """The trajectory called `name` at the size the scene was trained at, or None for `test` without test views."""
    train, count, fps = studio.train, studio.frames, studio.fps
    match name:
        case "input":
            return paths.as_filmed(train.cameras, train.times, fps)
        case "stabilised":
            return paths.stabilised(train.cameras, studio.depth, count, fps)
        case "bullet-time":
            return paths.bullet_time(train.cameras, train.times, studio.depth, count, fps)
        case "orbit":
            return paths.orbit(train.cameras, studio.depth, count, fps)
        case "test":
            test = load_clip(run.capture, "test", config.scene.max_size)
            return _one_camera_after_the_other(test, fps) if test else None
    stored = run.camera_paths / Path(name).name
    file = stored if stored.is_file() else Path(name)
    if file.suffix.lower() != ".json":
        raise BadInput(
            f"there is no camera path {name!r}", f"use {', '.join(PATH_NAMES)} or a nerfstudio camera-path JSON file"
        )
    return read_camera_path(file, train.cameras.width, train.cameras.height, fps)


def _one_camera_after_the_other(clip: Clip, fps: float) -> Trajectory:
    """The clip in the order of its file names: held-out cameras that film at the same time do not alternate."""
    order = sorted(range(len(clip)), key=clip.names.__getitem__)
    return paths.as_filmed(clip.cameras[order], clip.times[order], fps)


def _fitted(trajectory: Trajectory, width: int | None) -> Trajectory:
    """The trajectory at `width` (None: its own), its aspect kept, both sides even as H.264 wants them."""
    cameras = trajectory.cameras
    wide = width or cameras.width
    high = wide * cameras.height / cameras.width
    return trajectory.resized(max(2, 2 * round(wide / 2)), max(2, 2 * round(high / 2)))


def _file_stem(name: str) -> str:
    """The name of a path's files: its own name, or that of the camera-path file."""
    if name in PATH_NAMES:
        return name
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem).strip(".-") or "path"
    return f"{stem}-file" if stem in PATH_NAMES else stem


def _fingerprint(run: RunDir, trajectory: Trajectory) -> str | None:
    """Hash of scene and trajectory; None while the scene stage has no record."""
    record = run.stage_record("scene")
    if record is None:
        return None
    cameras = trajectory.cameras
    numbers = [t.cpu().tolist() for t in (cameras.camera_to_world, cameras.focal, cameras.principal, trajectory.times)]
    document = [record["fingerprint"], cameras.width, cameras.height, trajectory.fps, numbers]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _is_finished(run: RunDir, name: str, trajectory: Trajectory) -> bool:
    video = run.renders / f"{name}.mp4"
    record = video.with_suffix(".json")
    if not record.exists() or not all(part_file(video, part).exists() for part in PARTS):
        return False
    return (made := read_json(record).get("fingerprint")) is not None and made == _fingerprint(run, trajectory)
