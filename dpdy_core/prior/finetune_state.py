"""The checkpoint of a finetuning: one safetensors file from which it continues as if it had never stopped."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dpdy_core.rundir import write_atomic

FILE = "checkpoint.safetensors"


def save_state(
    folder: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    header: dict[str, Any],
) -> None:
    """Replace the checkpoint in `folder` atomically: parameters, optimiser and generator, and the JSON `header`."""
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        tensors |= {f"optimiser.{key}.{name}": part for key, part in optimiser.state[value].items()}
    tensors["generator"] = generator.get_state()
    stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"header": json.dumps(header)}
    write_atomic(folder / FILE, lambda partial: save_file(stored, partial, metadata=metadata))


def load_state(
    folder: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    settings: dict[str, Any],
) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return its header; None, and nothing is touched, where that can't be done.

    That is: there is no checkpoint, it is broken, or its header's `settings` are others.
    """
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            header: dict[str, Any] = json.loads(file.metadata()["header"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open isn't iterable
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    if header.get("settings") != settings or {f"parameter.{name}" for name in parameters} - tensors.keys():
        return None
    state: dict[int, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for index, (name, value) in enumerate(parameters.items()):
            value.copy_(tensors[f"parameter.{name}"])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"optimiser.{key}.{name}" in tensors]
            state[index] = {key: tensors[f"optimiser.{key}.{name}"] for key in keys}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return header
