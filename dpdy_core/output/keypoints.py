"""Annotated points of the training frames, carried by the scene from each frame to each other: PCK-T of DyCheck.

A static and a dynamic field tell what is where at each time, but not which point went where. So a point is carried from
training frame to training frame, each time in two steps. The depth that the scene renders for its own frame gives its
surface, which is projected into the next camera: where it would be if time stood still. Then time goes on for that
camera: where the dynamic field owns the pixel, the point follows the optical flow between the two renders. Geometry is
the fields', motion is what the dynamic field shows; no true image is looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.capture import KEYPOINTS_FILE
from dpdy_core.ingest.clip import Clip
from dpdy_core.ingest.flow import dense_flow, grey
from dpdy_core.output.metrics import pck_t
from dpdy_core.output.video import to_bytes
from dpdy_core.render.renderer import Rendering
from dpdy_core.rundir import read_json

Render = Callable[[int, float], Rendering]  # of a training camera at a time


@dataclass(frozen=True)
class Keypoints:
    """J points in the F annotated frames that the run kept, of `annotated` that the capture has."""

    frames: list[int]  # (F,) places in the training clip, ascending
    pixels: Tensor  # (F, J, 2) x and y in the clip's pixels, float64
    visible: Tensor  # (F, J) bool
    annotated: int

    def score(self, cameras: Cameras, times: Tensor, render: Render) -> float | None:
        """PCK-T of the points as `carried` takes them; None where no two frames share a point.

        `cameras` and `times` (T,) are those of the training clip, as the scene knows them.
        """
        if len(self.frames) < 2:
            return None
        found = carried(self.pixels, self.frames, cameras, times.tolist(), render)
        return pck_t(found, self.pixels, self.visible, (cameras.width, cameras.height))


def read_keypoints(capture: Path, train: Clip) -> Keypoints | None:
    """The annotated points of the capture folder, at the size of `train`; None where it has none."""
    if not (capture / KEYPOINTS_FILE).is_file():
        return None
    document: dict[str, Any] = read_json(capture / KEYPOINTS_FILE)
    known = document["frames"]
    frames = [place for place, name in enumerate(train.names) if name in known]
    rows = torch.tensor([known[train.names[place]] for place in frames], dtype=torch.float64)
    rows = rows if frames else rows.reshape(0, 0, 3)
    scale = torch.tensor([train.cameras.width, train.cameras.height]) / torch.tensor(document["size"])
    return Keypoints(frames, rows[..., :2] * scale, rows[..., 2] > 0, document["annotated"])


def carried(pixels: Tensor, frames: list[int], cameras: Cameras, times: list[float], render: Render) -> Tensor:
    """(F, F, J, 2): where the points `pixels` (F, J, 2) of annotated frame i are in annotated frame j.

    `frames` (F,) ascend and are places in the T `cameras` and `times`. Takes two renders and two flows for each frame
    between the first and the last of them, and keeps nine bytes a pixel of each.
    """
    found = pixels.double()[:, None].repeat(1, len(frames), 1, 1)
    steps: list[_Step] = []
    here, places = render(frames[0], times[frames[0]]), found[:0, 0]
    for frame in range(frames[0], frames[-1]):
        if frame in frames:
            places = torch.cat([places, pixels[None, frames.index(frame)].double()])
        meanwhile, there = render(frame + 1, times[frame]), render(frame + 1, times[frame + 1])
        places = _seen_from(places, cameras, frame, here.depth, frame + 1)
        places = _moved(places, _flow(meanwhile, there), _moving(meanwhile))
        steps.append(_Step(_flow(there, meanwhile).astype(np.float16), _moving(there), meanwhile.depth.cpu()))
        if frame + 1 in frames:
            arrived = frames.index(frame + 1)
            found[:arrived, arrived] = places
        here = there
    places = found[:0, 0]
    for frame in range(frames[-1], frames[0], -1):
        if frame in frames:
            places = torch.cat([places, pixels[None, frames.index(frame)].double()])
        step = steps[frame - 1 - frames[0]]
        places = _moved(places, step.back.astype(np.float32), step.moving)
        places = _seen_from(places, cameras, frame, step.depth, frame - 1)
        if frame - 1 in frames:
            arrived = frames.index(frame - 1)
            found[arrived + 1 :, arrived] = places.flip(0)
    return found


@dataclass(frozen=True)
class _Step:
    """What leads back to the frame before: in this camera to its time, then to its camera by the depth there."""

    back: np.ndarray  # (H, W, 2) float16 flow
    moving: np.ndarray  # (H, W) bool
    depth: Tensor  # (H, W) of this camera at the time before


def _seen_from(places: Tensor, cameras: Cameras, index: int, depth: Tensor, other: int) -> Tensor:
    """(N, J, 2) where camera `other` sees the surface at the pixels `places` (N, J, 2) of camera `index`."""
    where = places.reshape(-1, 2).to(cameras.focal)
    column = where[:, 0].long().clamp(0, cameras.width - 1)
    row = where[:, 1].long().clamp(0, cameras.height - 1)
    origins, directions = cameras.rays(torch.full_like(column, index), where)
    points = origins + depth.to(where)[row, column, None] * directions
    return cameras.project(points, torch.full_like(column, other))[0].to(places).reshape(places.shape)


def _moved(places: Tensor, flow: np.ndarray, moving: np.ndarray) -> Tensor:
    """(N, J, 2) the pixels `places` (N, J, 2) after the flow (H, W, 2), bilinear, of what is `moving` (H, W)."""
    last = np.array([flow.shape[1], flow.shape[0]]) - 1
    inside = np.clip(places.numpy() - 0.5, 0, last).astype(np.float32)  # cv2 counts from the first pixel's centre
    column, row = np.moveaxis(inside.round().astype(int), -1, 0)
    step = cv2.remap(flow, inside, None, cv2.INTER_LINEAR) if inside.size else inside
    return places + torch.from_numpy(np.where(moving[row, column, None], step, 0))


def _flow(first: Rendering, second: Rendering) -> np.ndarray:
    return dense_flow(grey(to_bytes(first.colour)), grey(to_bytes(second.colour)))


def _moving(rendering: Rendering) -> np.ndarray:
    return (rendering.dynamic > 0.5).cpu().numpy()
