"""A rendered capture in the layout of the NVIDIA dynamic scenes: `python -m tests.bench.rig OUT --scene rigid`.

Twelve fixed cameras take turns, so that each time is seen from one place; the first camera's view at the other eleven
times is held out. Depth is relative disparity with a scale, a shift and a smooth error of each frame's own, as a
monocular model gives it. Then `dpdy ablate OUT` or `dpdy run OUT --set evaluate.protocol=nvidia`.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.synth.capture import FOCAL, RISE, cameras_around, mask_bytes, rgb_bytes, write_image
from dpdy_core.synth.scenes import SCENES, build_scene
from dpdy_core.synth.shading import Images, draw

CAMERAS, WIDTH, HEIGHT = 12, 480, 270
ERROR = 0.06  # of disparity, standard deviation
BUMPS = (5, 8)  # of that error, down and across the picture


def rig(sweep: float) -> Cameras:
    """The twelve cameras, `sweep` degrees from the first to the last, in three heights."""
    place = torch.arange(CAMERAS) / (CAMERAS - 1)
    rise = RISE + 2.0 * (torch.arange(CAMERAS) % 3 - 1)
    return cameras_around(-90 + sweep * (place - 0.5), rise, WIDTH, HEIGHT)


def write_rig_capture(out: Path, scene: str, seed: int) -> None:
    """Write the capture to the new folder `out`."""
    moving_scene = build_scene(scene, seed)
    cameras, dice = rig(moving_scene.sweep), np.random.default_rng(seed)
    world = moving_scene.at(torch.linspace(0, 1, CAMERAS))
    for name in ("images", "motion_masks", "disp"):
        (out / name).mkdir(parents=True)
    for time in range(CAMERAS):
        taken = draw(world[time : time + 1], cameras[slice(time, time + 1)])
        moving = moving_scene.moving[world.pieces.owner[0]]
        write_image(out / "images" / f"{time:05d}.png", _bgr(taken))
        write_image(out / "motion_masks" / f"{time:05d}.png", mask_bytes(moving[taken.place[0]]))
        np.save(out / "disp" / f"{time:05d}.npy", _disparity(taken.depth[0, 0].numpy(), dice))
        if time:
            held_out = draw(world[time : time + 1], cameras[slice(0, 1)])
            for folder in ("mv_images", "mv_masks"):
                (out / folder / f"{time:05d}").mkdir(parents=True)
            write_image(out / "mv_images" / f"{time:05d}" / "cam01.jpg", _bgr(held_out))
            write_image(out / "mv_masks" / f"{time:05d}" / "cam01.png", mask_bytes(moving[held_out.place[0]]))
    np.save(out / "poses_bounds.npy", _rows(cameras))


def _disparity(depth: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in an unknown unit, from planar depth in metres."""
    error = cv2.resize(dice.normal(0, ERROR, BUMPS), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    scale, shift = dice.uniform(0.5, 2.0), dice.uniform(0.0, 0.3)
    return (scale * (1 + error) / depth + shift).astype(np.float32)


def _rows(cameras: Cameras) -> np.ndarray:
    """(12, 17) as `poses_bounds.npy` has them: [down, right, backwards, place, (height, width, focal)], near, far."""
    rows = []
    for right, up, back, place in cameras.camera_to_world.double().numpy().transpose(0, 2, 1):
        lens = np.array([HEIGHT, WIDTH, FOCAL * WIDTH])
        rows.append([*np.column_stack([-up, right, back, place, lens]).ravel(), 0.5, 20.0])
    return np.array(rows)


def _bgr(images: Images) -> np.ndarray:
    return cv2.cvtColor(rgb_bytes(images.rgb)[0], cv2.COLOR_RGB2BGR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scene", choices=sorted(SCENES), default="rigid")
    parser.add_argument("--seed", type=int, default=103)
    given = parser.parse_args()
    write_rig_capture(given.out, given.scene, given.seed)


if __name__ == "__main__":
    main()
