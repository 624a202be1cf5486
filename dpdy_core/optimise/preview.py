"""Pictures of the scene while it is being optimised."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.ingest.size import fitted_size
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.render.renderer import Rendering, render_camera
from dpdy_core.rundir import write_atomic
from dpdy_core.scene.scene import Scene

SIZE = 160  # longer side of each picture, pixels


def write_preview(path: Path, scene: Scene, clip: Clip, novel: NovelViews) -> None:
    """Write a strip: a training frame, the same view rendered, a novel view at that time, its depth."""
    frame = len(clip) // 2
    width, height = fitted_size(clip.cameras.width, clip.cameras.height, SIZE)
    cameras = clip.cameras.resized(width, height)
    time = float(clip.times[frame])
    camera = _seen_from_elsewhere(cameras[frame], novel)
    elsewhere = render_camera(scene, camera, 0, time, chunk=16384)
    pictures = [
        cv2.resize(clip.images[frame].cpu().numpy(), (width, height), interpolation=cv2.INTER_AREA),
        _bytes(render_camera(scene, cameras, frame, time, chunk=16384).colour),
        _bytes(elsewhere.colour),
        depth_colours(elsewhere),
    ]
    strip = cv2.cvtColor(np.concatenate(pictures, axis=1), cv2.COLOR_RGB2BGR)
    write_atomic(path, lambda partial: _write_image(partial, strip))


def depth_colours(rendering: Rendering) -> np.ndarray:
    """(H, W, 3) uint8 RGB: disparity between its 2nd and 98th percentile, near red and far blue."""
    disparity = 1 / rendering.depth.clamp_min(1e-6)
    low, high = disparity.flatten().quantile(disparity.new_tensor([0.02, 0.98]))
    grey = _bytes((disparity - low) / (high - low).clamp_min(1e-9))
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)


def _seen_from_elsewhere(camera: Cameras, novel: NovelViews) -> Cameras:
    """A novel pose (the same in every preview of a run) with the picture's own intrinsics."""
    generator = torch.Generator(novel.centres.device).manual_seed(7)
    pose = novel.draw(1, 1.0, generator)[0].camera_to_world
    return Cameras(pose, camera.focal, camera.principal, camera.width, camera.height)


def _bytes(values: Tensor) -> np.ndarray:
    result: np.ndarray = (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return result


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90]):
        raise OSError(f"could not write {path.name}")
