"""`make bench`: tables of speed on this machine. Nothing here passes or fails; compare ratios within one table."""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.presets import smoke
from dpdy_core.prior.ldm3d import load_ldm3d
from dpdy_core.render.renderer import render_camera, render_rays
from dpdy_core.runtime import resolve_device
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.fusion import fuse_encoders
from dpdy_core.scene.grid import plane_grids, space_grid, time_grids
from dpdy_core.scene.hashgrid import choose_backend, make_encoder
from dpdy_core.scene.scene import Scene
from dpdy_core.synth.dataset import sample_batch
from tests.bench.service import main as bench_service

REPEATS = 5


def milliseconds(action: Callable[[], object], device: torch.device) -> list[float]:
    """Wall-clock times of `action`, after one warm-up."""
    times = []
    for index in range(REPEATS + 1):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if index:
            times.append((time.perf_counter() - started) * 1e3)
    return times


def table(title: str, rows: list[tuple[str, Callable[[], object]]], device: torch.device) -> None:
    """Print the median and spread of each row, and its ratio to the first."""
    sys.stdout.write(f"\n{title}\n  {'':<44}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}\n")
    first = 0.0
    for name, action in rows:
        times = milliseconds(action, device)
        median = statistics.median(times)
        first = first or median
        line = f"  {name:<44}{median:>10.1f}{min(times):>10.1f}{max(times):>10.1f}{median / first:>8.2f}\n"
        sys.stdout.write(line)
        sys.stdout.flush()


def bench_grids(device: torch.device) -> None:
    fields, backend = smoke().scene.fields, choose_backend("auto", device)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(100_000, 4, device=device)

    def step(encoder: torch.nn.Module) -> None:
        encoder(points).square().sum().backward()
        encoder.zero_grad(set_to_none=True)

    space = [space_grid(fields.static_grid), *plane_grids(fields.dynamic_grid)]
    static = make_encoder(space, backend, generator).to(device)
    dynamic = make_encoder(time_grids(fields.dynamic_grid, 24), backend, generator).to(device)
    rows = [
        ("static: xyz 8, xy xz yz 6 levels", lambda: step(static)),
        ("dynamic: xyt xzt yzt, 6 levels", lambda: step(dynamic)),
    ]
    table(f"hash grids, backend {backend}: 100 k points, forward + backward, ms", rows, device)


def bench_scene(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    bounds = Bounds((0.0, 0.0, 0.0), 1.0, 0.2, 8.0)
    backend = choose_backend("auto", device)
    config = smoke().scene
    scene = Scene(config.fields, config.sampling, bounds, 24, backend, generator).to(device)
    if device.type == "cuda" and (reason := fuse_encoders(scene)):
        sys.stdout.write(f"{reason}\n")
    pose = look_at(torch.tensor([[2.0, 0, 0.5]]), torch.zeros(1, 3), torch.tensor([0.0, 0, 1]))
    cameras = Cameras(pose, torch.full((1, 2), 96.0), torch.tensor([[48.0, 36.0]]), 96, 72).to(device)
    origins, directions = (rays.reshape(-1, 3)[:1024] for rays in cameras.image_rays(0))
    times = torch.full((1024,), 0.5, device=device)

    def step() -> None:
        render_rays(scene, origins, directions, times, origins.new_zeros(3)).colour.sum().backward()
        scene.zero_grad(set_to_none=True)

    rows = [
        ("1024 rays, forward + backward", step),
        ("one frame of 96 x 72, no gradient", lambda: render_camera(scene, cameras, 0, 0.5, 16384)),
    ]
    table("rendering at the size of preset smoke, ms", rows, device)


@torch.no_grad()
def bench_prior(device: torch.device) -> None:
    model = load_ldm3d("dpdy-tiny", device)
    text = model.encode_prompt(["a scene"])
    timesteps = torch.tensor([500], device=device)
    images = {side: torch.rand(1, 4, side, side, device=device) * 2 - 1 for side in (64, 128)}
    latents = {side: model.encode(image) for side, image in images.items()}
    rows = [(f"encode, {side} px", lambda side=side: model.encode(images[side])) for side in images]
    rows += [
        (f"UNet, {side} px", lambda side=side: model.predict(latents[side], timesteps, text))  # type: ignore[misc]
        for side in images
    ]
    table("dpdy-tiny, batch 1, no gradient, ms", rows, device)


def bench_scenes(device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    rows = [("16 scenes of 128 x 128", lambda: sample_batch(16, 128, generator, device, "train"))]
    table("procedural scenes, ms", rows, device)


def main() -> None:
    device = resolve_device("auto")
    sys.stdout.write(f"device {device}, torch {torch.__version__}, threads {torch.get_num_threads()}\n")
    for bench in (bench_grids, bench_scene, bench_prior, bench_scenes):
        bench(device)
    sys.stdout.write("\nthe service\n")
    bench_service()


if __name__ == "__main__":
    main()
