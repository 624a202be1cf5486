"""Fused hash-grid kernels on CUDA."""

import subprocess

import torch
import torch._dynamo

from dpdy_core.scene.scene import Scene


def fuse_encoders(scene: Scene) -> str | None:
    """Compile the encoders of the torch backend and try each once; the reason if they have to stay eager, else None."""
    encoders = scene.encoders()
    # Each encoder is compiled with and without gradients; beyond dynamo's limit of 8 the rest would silently be eager.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 8 * max(1, len(encoders))
    for encoder in encoders:
        encoder.compile_kernels()
        try:
            features = encoder(torch.rand(4096, 4, device=encoder.table.device))
            if features.requires_grad:
                features.sum().backward()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            for each in encoders:
                each.use_eager()
            reason = str(error).strip().partition("\n")[0]
            return f"the hash grids run unfused, several times slower: torch.compile failed ({reason})"
    scene.zero_grad(set_to_none=True)
    return None
