"""The finetuned prior of a run: LoRA adapters, and the files in the prior folder."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpdy_core.errors import JobFailed
from dpdy_core.prior.ldm3d import Ldm3d, load_ldm3d
from dpdy_core.rundir import folder_atomic, read_json, write_atomic, write_json

RECORD = "prior.json"
LORA = "pytorch_lora_weights.safetensors"  # diffusers' name
UNET_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def add_lora(model: Ldm3d, rank: int, text: bool, seed: int) -> None:
    """Add trainable adapters (alpha = rank) to the UNet's attention, and to that of the text model if `text`.

    They start as no change. All other parameters stay frozen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.unet.add_adapter(_lora(rank, UNET_TARGETS))
        if text:
            model.text_encoder.add_adapter(_lora(rank, TEXT_TARGETS))


def _lora(rank: int, targets: list[str]) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)


def trainable(model: Ldm3d) -> dict[str, torch.nn.Parameter]:
    """The parameters that ask for a gradient, by part and name, in a fixed order."""
    parts = {"unet": model.unet, "text_encoder": model.text_encoder}
    return {f"{part}.{name}": p for part, m in parts.items() for name, p in m.named_parameters() if p.requires_grad}


def base_of(parameters: dict[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """What `interpolate_to_base` needs of `parameters` before they are finetuned: copies; of adapters nothing."""
    return {name: value.detach().clone() for name, value in parameters.items() if not _is_lora(name)}


@torch.no_grad()
def interpolate_to_base(parameters: dict[str, torch.nn.Parameter], base: dict[str, Tensor], share: float) -> None:
    """Bring finetuned `parameters` back to base + `share` (finetuned - base), in place.

    WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1). Of LoRA's product B A, whose base
    is 0, B alone is scaled.
    """
    if share == 1:
        return
    for name, value in parameters.items():
        if not _is_lora(name):
            value.copy_(torch.lerp(base[name], value, share))
        elif ".lora_B." in name:
            value.mul_(share)


def _is_lora(name: str) -> bool:
    return ".lora_" in name


def save_lora(model: Ldm3d, folder: Path, text: bool) -> None:
    """Write the adapters as `pytorch_lora_weights.safetensors`, which diffusers' loaders read."""
    state = {f"unet.{k}": v for k, v in get_peft_model_state_dict(model.unet).items()}
    if text:
        state |= {f"text_encoder.{k}": v for k, v in get_peft_model_state_dict(model.text_encoder).items()}
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in state.items()}
    write_atomic(folder / LORA, lambda partial: save_file(tensors, partial, metadata={"format": "pt"}))
    (folder / LORA).chmod(0o644)  # safetensors makes it private to the user


def save_full(model: Ldm3d, folder: Path, text: bool) -> None:
    """Write the whole UNet, and the text model if `text`, in diffusers' layout."""
    with folder_atomic(folder / "unet") as partial:
        model.unet.save_pretrained(partial)
    if text:
        with folder_atomic(folder / "text_encoder") as partial:
            model.text_encoder.save_pretrained(partial)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `prior.json`: `base`, `method`, `prompt`, `class_prompt`, `resolution`, `rank`, `text`, losses."""
    write_json(folder / RECORD, record)


def load_finetuned(folder: Path, device: torch.device | str) -> tuple[Ldm3d, dict[str, Any]]:
    """The base model with the run's finetuning merged in, frozen, and its record.

    Raises JobFailed if the folder holds no finished prior.
    """
    if not (folder / RECORD).exists():
        raise JobFailed(f"{folder} holds no finished prior", "run the prior stage first")
    record: dict[str, Any] = read_json(folder / RECORD)
    model = load_ldm3d(record["base"], device)
    if record["method"] == "lora":
        merge_lora(model, load_file(folder / LORA, device=str(device)), record["rank"], record["text"])
    elif record["method"] == "full":
        model.unet = type(model.unet).from_pretrained(folder / "unet", local_files_only=True, use_safetensors=True)
        if record["text"]:
            model.text_encoder = type(model.text_encoder).from_pretrained(
                folder / "text_encoder", local_files_only=True, use_safetensors=True
            )
    return model.to(device).frozen(), record


def merge_lora(model: Ldm3d, state: dict[str, Tensor], rank: int, text: bool) -> None:
    """Add the adapters in `state` (names as `save_lora` writes them) to the weights; the modules stay plain ones."""
    add_lora(model, rank, text, seed=0)
    for part, module in (("unet", model.unet), ("text_encoder", model.text_encoder)):
        own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
        if own:
            set_peft_model_state_dict(module, own)
            _bake(module)


def _bake(module: Any) -> None:
    """Merge every adapter of `module` and put the layer it adapted back in its place."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            module.set_submodule(name, layer.get_base_layer())
    del module.peft_config
    module._hf_peft_config_loaded = False
