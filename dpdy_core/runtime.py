"""Device, seeds and versions of this process."""

import os
import platform
import random
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import torch
import torch.utils.deterministic

from dpdy_core import __version__
from dpdy_core.errors import BadSettings, GpuLost

PACKAGES = (
    *("torch", "diffusers", "transformers", "peft", "numpy"),
    *("opencv-python-headless", "av", "pycolmap", "torchmetrics", "flip-evaluator"),
)


def resolve_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to compute on. Raises BadSettings if `cuda` was asked for and is not there.

    Raises GpuLost if a worker gave this run a GPU (DPDY_GPU) that CUDA does not see: hours on the CPU would be no help.
    """
    if wanted != "cpu" and (promised := os.environ.get("DPDY_GPU")) and not torch.cuda.is_available():
        raise GpuLost(f"{promised} is not visible to CUDA", "check the driver, or restart the container")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BadSettings(
            "device is cuda but no CUDA device is visible", "use --device auto or cpu, or check the driver"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def seed_everything(seed: int) -> None:
    """Seed all global generators; on the CPU equal seeds give equal bits."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def compute_deterministically(device: torch.device) -> None:
    """Let torch take algorithms that give the same bits again, on the CPU; on the GPU they are too slow."""
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs a tenth of a step


def environment(device: torch.device) -> dict[str, Any]:
    """What the run record says of the machine and the versions."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "dpdy": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
    }
