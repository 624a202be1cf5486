"""The encoder of the fields and the choice of who computes it."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from torch import Tensor

from dpdy_core.errors import BadSettings
from dpdy_core.scene.grid import Grid
from dpdy_core.scene.hashgrid_tcnn import TcnnHashGrid
from dpdy_core.scene.hashgrid_torch import TorchHashGrid

Backend = Literal["torch", "tinycudann"]


class Encoder(Protocol):
    """What a field needs of its hash grids."""

    width: int

    def __call__(self, points: Tensor) -> Tensor:
        """Features (N, width) of `points` (N, D) in [0, 1]; each grid reads its own three columns, 0 beyond D."""
        ...

    def decay(self) -> Tensor:
        """0-dim: the mean squared feature of each hashed level, summed."""
        ...


def choose_backend(wanted: Literal["auto", "torch", "tinycudann"], device: torch.device) -> Backend:
    """The backend to use. Raises BadSettings if tinycudann was asked for and cannot run."""
    there = find_spec("tinycudann") is not None
    if wanted == "tinycudann" and (not there or device.type != "cuda"):
        cause = "it is not installed" if not there else "the device is not cuda"
        raise BadSettings(
            f"scene.fields.backend is tinycudann but {cause}",
            "use scene.fields.backend=auto or torch, or --device cuda",
        )
    if wanted == "auto":
        return "tinycudann" if there and device.type == "cuda" else "torch"
    return wanted


def make_encoder(grids: Sequence[Grid], backend: Backend, generator: torch.Generator) -> TorchHashGrid | TcnnHashGrid:
    """The grids of one field as one encoder; their features are concatenated."""
    if backend == "tinycudann":
        return TcnnHashGrid(grids, generator)
    return TorchHashGrid(grids, generator)
