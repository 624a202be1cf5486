"""Checkpoints: safetensors for numbers, JSON for the rest with the hash of the numbers.

The JSON is written last and names the sha256 of its safetensors file: a checkpoint without it, or with another hash,
is not valid. Both writes are atomic, the last two checkpoints are kept, and loading takes the newest valid one.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpdy_core.rundir import read_json, sha256_file, write_atomic, write_json

KEPT = 2
FORMAT = 1  # of what is in a checkpoint and how it is named: another version's is refused, and its stage begins anew


@dataclass(frozen=True)
class Checkpoint:
    """One moment of an optimisation."""

    step: int
    header: dict[str, Any]  # what it takes to build the model again, and whose checkpoint it is
    tensors: dict[str, Tensor]  # on the CPU


def save_checkpoint(folder: Path, step: int, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write the checkpoint of `step`, then remove all but it and the one before, and what kills left of others.

    One of a later step is none of ours: it was made by another version, or for other settings.
    """
    numbers, record = _files(folder, step)
    contents = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def write(partial: Path) -> None:
        save_file(contents, partial)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read

    write_atomic(numbers, write)
    write_json(record, {**header, "format": FORMAT, "step": step, "sha256": sha256_file(numbers)})
    ours = [earlier for earlier in _steps(folder) if earlier <= step]
    kept = {path for newest in ours[:KEPT] for path in _files(folder, newest)}
    for pattern in ("step_*.json", "step_*.safetensors", ".step_*.partial.*"):
        for path in folder.glob(pattern):
            if path not in kept:
                path.unlink(missing_ok=True)


def newest_checkpoint(
    folder: Path, identity: Any = None, warn: Callable[[str], None] | None = None
) -> Checkpoint | None:
    """The newest checkpoint that is whole and, if `identity` is given, was made for it; None if there is none.

    `warn` hears of those that are damaged, or of another format: they may be of another version that still runs.
    """
    for step in _steps(folder):
        numbers, record = _files(folder, step)
        try:
            header = read_json(record)
            if identity is not None and header["identity"] != identity:
                continue
            if (found := header.get("format", 1)) != FORMAT:
                if warn is not None:
                    warn(f"the checkpoint of step {step} has format {found} of another version, not {FORMAT}: not used")
                continue
            if header["sha256"] != sha256_file(numbers):
                raise ValueError("its hash is wrong")
            return Checkpoint(step, header, load_file(numbers))
        except (
            OSError,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            json.JSONDecodeError,
            SafetensorError,
        ) as error:
            if warn is not None:
                warn(f"the checkpoint of step {step} is damaged ({error}); an older one is used")
    return None


def tensors_below(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}


def remove_checkpoints(folder: Path) -> None:
    """Remove all of them: their optimisation has ended, and its result is elsewhere."""
    for pattern in ("step_*.json", "step_*.safetensors", ".step_*.partial.*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _files(folder: Path, step: int) -> tuple[Path, Path]:
    return folder / f"step_{step:07d}.safetensors", folder / f"step_{step:07d}.json"


def _steps(folder: Path) -> list[int]:
    """Steps that have a record, newest first."""
    found = (path.stem.removeprefix("step_") for path in folder.glob("step_*.json"))
    return sorted((int(text) for text in found if text.isdecimal()), reverse=True)
