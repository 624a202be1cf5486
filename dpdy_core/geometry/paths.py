"""Camera trajectories: where the virtual camera is, and at which moment of the clip, in every frame of a video.

All lengths are in the units of the given cameras, angles in radians, times in [0, 1] over the clip.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras

# The swing leaves the arc of the training cameras by 0.3 of it, at least and at most by these angles; beyond about
# ten degrees most of what appears was seen by no frame.
LEAST_BEYOND = math.radians(6.0)
MOST_BEYOND = math.radians(12.0)
WIDEST_ARC = math.radians(30.0)


@dataclass(frozen=True)
class Trajectory:
    """The frames of one video: N cameras, their times (N,) and a constant frame rate in Hz."""

    cameras: Cameras
    times: Tensor
    fps: float

    def __len__(self) -> int:
        return len(self.cameras)

    def resized(self, width: int, height: int) -> "Trajectory":
        return replace(self, cameras=self.cameras.resized(width, height))


def as_filmed(cameras: Cameras, times: Tensor, fps: float) -> Trajectory:
    """The given cameras at their own times: the paths `input` and `test`."""
    return Trajectory(cameras, times, fps)


def stabilised(cameras: Cameras, depth: float, frames: int, fps: float) -> Trajectory:
    """The most central training camera, fixed, while time plays from 0 to 1. `depth`: typical scene depth."""
    fixed = cameras[[central_camera(cameras, depth)] * frames]
    return Trajectory(fixed, playing_times(frames, cameras), fps)


def bullet_time(cameras: Cameras, times: Tensor, depth: float, frames: int, fps: float) -> Trajectory:
    """Time frozen at the middle of the clip while the camera swings around the training camera of that moment."""
    middle = int((times - 0.5).abs().argmin())
    frozen = torch.full((frames,), 0.5, dtype=times.dtype, device=times.device)
    return Trajectory(swing(cameras, middle, depth, frames), frozen, fps)


def orbit(cameras: Cameras, depth: float, frames: int, fps: float) -> Trajectory:
    """The camera swings around the most central training camera while time plays from 0 to 1."""
    moving = swing(cameras, central_camera(cameras, depth), depth, frames)
    return Trajectory(moving, playing_times(frames, cameras), fps)


def playing_times(frames: int, cameras: Cameras) -> Tensor:
    """(N,) times from 0 to 1 on the device of `cameras`; a single frame shows the middle."""
    if frames == 1:
        return cameras.focal.new_full((1,), 0.5)
    return torch.linspace(0.0, 1.0, frames, dtype=cameras.focal.dtype, device=cameras.focal.device)


def central_camera(cameras: Cameras, depth: float) -> int:
    """Index of the camera with the least summed distance to all others.

    The distance of two poses is that of their centres plus the shift that the angle between their optical axes causes
    at `depth`, so that moving and turning count by what they do to the picture.
    """
    centres, forward = cameras.centres.double(), -cameras.camera_to_world[:, :, 2].double()
    angles = torch.atan2(
        torch.linalg.cross(forward[:, None].expand(-1, len(cameras), -1), forward[None]).norm(dim=-1),
        forward @ forward.T,
    )
    return int((torch.cdist(centres, centres) + depth * angles).sum(dim=1).argmin())


def focus_point(cameras: Cameras, centre: int, depth: float) -> Tensor:
    """(3,) float64: the point to swing around.

    That is the point nearest to all optical axes (least squares), if it lies in front of camera `centre` at 0.5 to 2
    times the scene's typical `depth`; a hand-held camera that only turns has none, then it is the point of that
    camera's own axis at `depth`.
    """
    centres, forward = cameras.centres.double(), -cameras.camera_to_world[:, :, 2].double()
    origin, axis = centres[centre], forward[centre]
    across = torch.eye(3, dtype=torch.float64, device=centres.device) - forward[:, :, None] * forward[:, None]
    # One per cent of the identity around the point at `depth` keeps parallel axes solvable.
    prior = 0.01 * len(cameras)
    matrix = across.sum(dim=0) + prior * torch.eye(3, dtype=torch.float64, device=centres.device)
    point = torch.linalg.solve(matrix, torch.einsum("nij,nj->i", across, centres) + prior * (origin + depth * axis))
    reach = torch.dot(point - origin, axis)
    if not 0.5 * depth <= reach <= 2.0 * depth:
        return origin + depth * axis
    return origin + reach * axis


def up_direction(cameras: Cameras) -> Tensor:
    """(3,) float64: upwards in the world, if the camera was held roughly level.

    The direction most orthogonal to all right-hand axes, pulled towards the mean up axis of the cameras where the
    camera turned too little for the right-hand axes to tell.
    """
    right, up = cameras.camera_to_world[:, :, 0].double(), cameras.camera_to_world[:, :, 1].double().mean(dim=0)
    up = up / up.norm().clamp(min=1e-9)
    scatter = right.T @ right / len(cameras)
    pull = torch.eye(3, dtype=torch.float64, device=right.device) - up[:, None] * up
    normal = torch.linalg.eigh(scatter + 0.005 * pull).eigenvectors[:, 0]
    return torch.where(torch.dot(normal, up) < 0, -normal, normal)


def swing(cameras: Cameras, centre: int, depth: float, frames: int) -> Cameras:
    """A closed, smooth loop of `frames` cameras that starts at training camera `centre`.

    The camera turns rigidly around `focus_point`: azimuth a sin(s), elevation b sin(2 s) for s in [0, 2 pi), so the
    distance to the focus never changes and what the camera looks at stays in place. The amplitudes are those of the
    training cameras as seen from the focus, and somewhat more.
    """
    focus = focus_point(cameras, centre, depth)
    frame = _swing_frame(cameras, centre, focus)
    wide, high = _amplitudes(cameras, centre, focus, frame)
    phase = torch.arange(frames, dtype=torch.float64, device=focus.device) * (2 * math.pi / frames)
    turn = _rotations(frame[1], wide * torch.sin(phase)) @ _rotations(frame[0], -high * torch.sin(2 * phase))
    pose = cameras.camera_to_world[centre].double()
    moved = torch.cat([turn @ pose[:, :3], (focus + turn @ (pose[:, 3] - focus))[:, :, None]], dim=-1)
    return replace(cameras[[centre] * frames], camera_to_world=moved.to(cameras.camera_to_world))


def _swing_frame(cameras: Cameras, centre: int, focus: Tensor) -> Tensor:
    """(3, 3) rows right, up, back: orthonormal, `back` from the focus towards the camera."""
    arm = cameras.centres[centre].double() - focus
    up = up_direction(cameras)
    if torch.dot(arm, up).abs() > 0.9 * arm.norm():  # looking straight down or up: azimuth would have no meaning
        up = cameras.camera_to_world[centre, :, 1].double()
    back = arm - torch.dot(arm, up) * up
    back = back / back.norm()
    return torch.stack([torch.linalg.cross(up, back), up, back])


def _amplitudes(cameras: Cameras, centre: int, focus: Tensor, frame: Tensor) -> tuple[float, float]:
    """Azimuth and elevation amplitude from the arc of the training cameras around the focus."""
    right, up, back = (frame @ (cameras.centres.double() - focus).T).unbind()
    azimuth = torch.atan2(right, back)
    elevation = torch.atan2(up, torch.hypot(right, back))
    wide = _beyond(torch.quantile(azimuth.abs(), 0.95).item())
    high = _beyond(torch.quantile((elevation - elevation[centre]).abs(), 0.95).item())
    return wide, min(high, 0.5 * wide)


def _beyond(arc: float) -> float:
    arc = min(arc, WIDEST_ARC)
    return arc + min(max(0.3 * arc, LEAST_BEYOND), MOST_BEYOND)


def _rotations(axis: Tensor, angles: Tensor) -> Tensor:
    """(N, 3, 3) right-handed rotations by `angles` (N,) around the unit `axis` (3,) (Rodrigues)."""
    zero = torch.zeros_like(axis[0])
    cross = torch.stack(
        [
            torch.stack([zero, -axis[2], axis[1]]),
            torch.stack([axis[2], zero, -axis[0]]),
            torch.stack([-axis[1], axis[0], zero]),
        ]
    )
    sine, versine = torch.sin(angles)[:, None, None], (1 - torch.cos(angles))[:, None, None]
    return torch.eye(3, dtype=axis.dtype, device=axis.device) + sine * cross + versine * (cross @ cross)
