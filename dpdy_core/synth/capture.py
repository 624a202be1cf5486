"""A moving scene as a capture in nerfstudio's format, with everything a real camera cannot tell: exact cameras, depth,
motion masks, held-out views and co-visibility."""

import math
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.errors import BadSettings
from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.progress import Reporter
from dpdy_core.rundir import folder_atomic, write_json
from dpdy_core.synth.covisibility import carried, times_seen
from dpdy_core.synth.raytrace import PieceList
from dpdy_core.synth.scenes import SCENES, MovingScene, build_scene
from dpdy_core.synth.shading import Images, draw
from dpdy_core.synth.world import World

TARGET = (0.0, 0.25, 0.45)  # metres; all cameras look at it
DISTANCE, RISE, BOB = 2.75, 18.0, 1.2  # metres, degrees, degrees
FOCAL = 0.95  # of the image's width
HELD_OUT = (("test_a", 18.0, 2.0), ("test_b", -12.0, 14.0))  # degrees beyond the ends of the arc, and above it
MILLIMETRE = 0.001
SEEN_BY = 3  # training frames that make a point co-visible
POINTS = 1 << 14  # followed at once
FOLLOWED = 10  # training frames in which a view's points are followed in about the time that a view is drawn
FPS = 12
MIN_SIZE, MAX_SIZE = 16, 4096


def make_capture(out: Path, scene: str, frames: int, width: int, height: int, seed: int, reporter: Reporter) -> None:
    """Write the capture of scene `scene` (in SCENES) to the folder `out`: `frames` training frames of one camera on an
    arc, and two fixed held-out cameras at every third of their times.

    Equal arguments give equal files. `out` appears whole or not at all. Units are metres; Time is step / (frames - 1).
    Raises BadSettings for an unknown scene, an impossible size, or an `out` that holds files.
    """
    _check(out, scene, frames, width, height, seed)
    reporter.start("synth")
    moving_scene = build_scene(scene, seed)
    steps = torch.linspace(0, frames - 1, math.ceil(frames / 3)).round().long().tolist()
    views = [(f"train_{t:03d}", t) for t in range(frames)] + [
        (f"{n}_{t:03d}", t) for n, _, _ in HELD_OUT for t in steps
    ]
    times = torch.tensor([t / (frames - 1) for _, t in views])
    cameras = _cameras(moving_scene.sweep, times[:frames], len(steps), width, height)
    world = moving_scene.at(times)
    each = math.ceil(frames / FOLLOWED)
    total = len(views) + each * (len(views) - frames)
    images = _draw_all(world, cameras, total, reporter)
    with folder_atomic(out) as folder:
        for name in ("images", "depth", "motion_masks", "covisible"):
            (folder / name).mkdir()
        _write_maps(folder, [name for name, _ in views], images, _motion(moving_scene, world, images))
        covisible = zip(views[frames:], _covisible(world, cameras, images, frames), strict=True)
        for number, ((name, _), seen) in enumerate(covisible, start=1):
            write_image(folder / "covisible" / f"{name}.png", mask_bytes(seen))
            reporter.step(len(views) + each * number, total)
        _write_video(folder / "rgb.mp4", rgb_bytes(images.rgb[:frames]))
        write_json(folder / "transforms.json", _document(views, frames, cameras))
    reporter.done(frames=frames, held_out=len(views) - frames)


def _check(out: Path, scene: str, frames: int, width: int, height: int, seed: int) -> None:
    if scene not in SCENES:
        raise BadSettings(f"there is no scene {scene!r}", f"choose one of {', '.join(SCENES)}")
    if frames < 2:
        raise BadSettings(f"{frames} frames do not make a moving scene", "ask for at least 2")
    if not (MIN_SIZE <= width <= MAX_SIZE and MIN_SIZE <= height <= MAX_SIZE):
        raise BadSettings(
            f"{width}x{height} is not a usable size", f"both sides must be {MIN_SIZE} to {MAX_SIZE} pixels"
        )
    if seed < 0:
        raise BadSettings(f"seed {seed} is negative", "give 0 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadSettings(f"{out} exists and is not an empty folder", "give a new folder")


def _cameras(sweep: float, times: Tensor, held_out: int, width: int, height: int) -> Cameras:
    """The training cameras at `times` (T,), then `held_out` times each held-out camera."""
    azimuth = [-90 + sweep * (t - 0.5) for t in times.tolist()]
    rise = [RISE + BOB * math.sin(2 * math.pi * 1.5 * t) for t in times.tolist()]
    for _, beyond, above in HELD_OUT:
        azimuth += [-90 + math.copysign(sweep / 2, beyond) + beyond] * held_out
        rise += [RISE + above] * held_out
    return cameras_around(torch.tensor(azimuth), torch.tensor(rise), width, height)


def cameras_around(azimuth: Tensor, rise: Tensor, width: int, height: int, aim: Tensor | None = None) -> Cameras:
    """Cameras at `azimuth` and `rise` (N,), in degrees, DISTANCE from TARGET; they look at it or at `aim` (N, 3)."""
    a, e = azimuth.deg2rad(), rise.deg2rad()
    outward = torch.stack([a.cos() * e.cos(), a.sin() * e.cos(), e.sin()], dim=-1)
    target = torch.tensor(TARGET)
    up = torch.tensor([0.0, 0.0, 1.0])
    return Cameras(
        camera_to_world=look_at(target + DISTANCE * outward, target if aim is None else aim, up),
        focal=torch.full((len(a), 2), FOCAL * width),
        principal=torch.tensor([width / 2, height / 2]).expand(len(a), 2).contiguous(),
        width=width,
        height=height,
    )


def _draw_all(world: World, cameras: Cameras, total: int, reporter: Reporter) -> Images:
    drawn = []
    for i in range(len(world)):
        drawn.append(draw(world[i : i + 1], cameras[slice(i, i + 1)]))
        reporter.step(i + 1, total)
    return Images(*(torch.cat([getattr(one, name) for one in drawn]) for name in ("rgb", "depth", "place")))


def _motion(scene: MovingScene, world: World, images: Images) -> Tensor:
    """(T, H, W) whether the pixel shows an object that moves at any time."""
    return scene.moving[world.pieces.owner[0]][images.place]


def _covisible(world: World, cameras: Cameras, images: Images, frames: int) -> Iterator[Tensor]:
    """(H, W) for each view after the first `frames`, which train: whether SEEN_BY of these saw the same point."""
    training = torch.arange(frames)
    scenes = PieceList(world[:frames])
    for view in range(frames, len(world)):
        origin, direction = cameras.image_rays(view)
        point = (origin + images.depth[view, 0, :, :, None] * direction).reshape(-1, 3)
        counts = []
        for part in torch.arange(len(point)).split(POINTS):
            points = carried(world.pieces, view, training, images.place[view].flatten()[part], point[part])
            counts.append(times_seen(points, scenes, cameras[training], images.depth[:frames, 0]))
        yield (torch.cat(counts) >= SEEN_BY).view(cameras.height, cameras.width)


def _write_maps(folder: Path, names: list[str], images: Images, motion: Tensor) -> None:
    pictures = rgb_bytes(images.rgb)
    millimetres = (images.depth[:, 0] / MILLIMETRE).round().clamp(0, 65535).numpy().astype(np.uint16)
    for i, name in enumerate(names):
        write_image(folder / "images" / f"{name}.png", cv2.cvtColor(pictures[i], cv2.COLOR_RGB2BGR))
        write_image(folder / "depth" / f"{name}.png", millimetres[i])
        write_image(folder / "motion_masks" / f"{name}.png", mask_bytes(motion[i]))


def rgb_bytes(rgb: Tensor) -> np.ndarray:
    """(T, H, W, 3) uint8 of (T, 3, H, W) in [0, 1]."""
    array: np.ndarray = (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return array


def mask_bytes(mask: Tensor) -> np.ndarray:
    """(H, W) uint8, 255 where `mask` (H, W) bool is true."""
    array: np.ndarray = (mask.to(torch.uint8) * 255).numpy()
    return array


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image in OpenCV's order of channels. Raises OSError if that fails."""
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path} could not be written")


def _write_video(path: Path, pictures: np.ndarray) -> None:
    """H.264 of (T, H, W, 3) uint8, cut to even sides; the same scene as a plain video."""
    height, width = (side // 2 * 2 for side in pictures.shape[1:3])
    # equal bytes need one thread, arithmetic that is the same on all processors, and no swscale
    options = {"crf": "14", "threads": "1", "x264-params": "cpu-independent=1"}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            planes = cv2.cvtColor(np.ascontiguousarray(picture[:height, :width]), cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def _document(views: list[tuple[str, int]], frames: int, cameras: Cameras) -> dict[str, object]:
    """The content of transforms.json."""
    entries: list[dict[str, object]] = []
    for i, (name, step) in enumerate(views):
        entry: dict[str, object] = {
            "file_path": f"images/{name}.png",
            "depth_file_path": f"depth/{name}.png",
            "motion_mask_path": f"motion_masks/{name}.png",
            "time": step / (frames - 1),
            "transform_matrix": [*cameras.camera_to_world[i].tolist(), [0.0, 0.0, 0.0, 1.0]],
        }
        if i >= frames:
            entry["covisible_path"] = f"covisible/{name}.png"
        entries.append(entry)
    focal, principal = cameras.focal[0].tolist(), cameras.principal[0].tolist()
    return {
        "camera_model": "OPENCV",
        "w": cameras.width,
        "h": cameras.height,
        "fl_x": focal[0],
        "fl_y": focal[1],
        "cx": principal[0],
        "cy": principal[1],
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "depth_unit_scale_factor": MILLIMETRE,
        "depth_kind": "metric",
        "train_filenames": [entry["file_path"] for entry in entries[:frames]],
        "val_filenames": [],
        "test_filenames": [entry["file_path"] for entry in entries[frames:]],
        "frames": entries,
    }
