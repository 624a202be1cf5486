"""Compiles pretraining's networks in a second process while the first one makes scenes and trains the VAE.

torch.compile keeps what it made in a cache on disk, so that the first process later finds it there. If it doesn't, it
only loses the time.
"""

import multiprocessing

import torch

from dpdy_core.prior.autoencoder import Restore, autoencoder_loss, restored
from dpdy_core.prior.denoiser import denoising_loss
from dpdy_core.prior.tiny import Layout, build_tiny


def compiled_restore() -> Restore:
    """`restored`, compiled anew for every shape."""
    compiled: Restore = torch.compile(restored, dynamic=False)
    return compiled


def compile_ahead(layout: Layout, vae_batch: int, batch: int) -> multiprocessing.process.BaseProcess:
    """Start compiling for images of `layout` in a process of its own, which ends with this one."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_compile, args=(layout, vae_batch, batch), daemon=True)
    process.start()
    return process


def _compile(layout: Layout, vae_batch: int, batch: int) -> None:
    """One step of every shape that training meets, as training does it."""
    torch.set_float32_matmul_precision("high")
    device, side = torch.device("cuda"), layout.resolution
    model = build_tiny(layout=layout).to(device)
    generator = torch.Generator(device).manual_seed(0)
    model.vae.to(memory_format=torch.channels_last).train().requires_grad_(True)
    crops = torch.rand((3 * vae_batch, 4, side // 2, side // 2), device=device)
    autoencoder_loss(model.vae, crops, generator, compiled_restore()).backward()
    model.unet.to(memory_format=torch.channels_last).train().requires_grad_(True)
    model.text_encoder.train().requires_grad_(True)
    model.unet.compile(dynamic=False)
    ids = model.token_ids([""] * batch)
    for width in (side // 2, side):
        latents = torch.randn((batch, 4, width // model.reduction, width // model.reduction), device=device)
        with torch.autocast("cuda", torch.bfloat16):
            loss = denoising_loss(model, latents, ids, generator)
        loss.backward()
