"""The checkpoints of a finetuning, from which it continues as if it had never stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dpdy_core.checkpoint import newest_checkpoint, remove_checkpoints, save_checkpoint

FOLDER = "checkpoints"


def save_state(
    folder: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    header: dict[str, Any],
) -> None:
    """Write the checkpoint of `header["step"]`: parameters, optimiser and generator; `header` goes into its JSON."""
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        tensors |= {f"optimiser.{key}.{name}": part for key, part in optimiser.state[value].items()}
    tensors["generator"] = generator.get_state()
    save_checkpoint(folder / FOLDER, header["step"], header, tensors)


def load_state(
    folder: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    identity: dict[str, Any],
    warn: Callable[[str], None] | None = None,
) -> dict[str, Any] | None:
    """Restore the newest good checkpoint and return its header; None, and nothing is touched, where there is none.

    Checkpoints whose header has another `identity` are not ours; `warn` hears of broken ones.
    """
    checkpoint = newest_checkpoint(folder / FOLDER, identity, warn)
    if checkpoint is None or {f"parameter.{name}" for name in parameters} - checkpoint.tensors.keys():
        return None
    tensors = checkpoint.tensors
    state: dict[int, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for index, (name, value) in enumerate(parameters.items()):
            value.copy_(tensors[f"parameter.{name}"])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"optimiser.{key}.{name}" in tensors]
            state[index] = {key: tensors[f"optimiser.{key}.{name}"] for key in keys}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return checkpoint.header


def remove_states(folder: Path) -> None:
    """Remove what only a resume needs."""
    remove_checkpoints(folder / FOLDER)
    if (folder / FOLDER).exists():
        (folder / FOLDER).rmdir()
