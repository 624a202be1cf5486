"""Fused hash-grid kernels on CUDA."""

import subprocess

import torch
import torch._dynamo

from dpdy_core.scene.hashgrid_torch import encode_group
from dpdy_core.scene.scene import Scene

# of one function: dense or hashed, with or without gradients of table and points; beyond it the rest would be eager
VARIANTS = 16
POINTS = 131072  # as many as in a step: kernels are tuned for what they are tried on


def fuse_encoders(scene: Scene) -> str | None:
    """Compile the encoders of the torch backend and try each once; the reason if they have to stay eager, else None.

    All share what is compiled, about six times as fast as eager, with all other scenes of this process.
    """
    encoders = scene.encoders()
    torch._dynamo.config.recompile_limit = VARIANTS
    torch._dynamo.config.force_parameter_static_shapes = False  # tables differ in length alone
    fused = torch.compile(encode_group, dynamic=True)
    for encoder in encoders:
        encoder.encode = fused
        torch._dynamo.mark_static(encoder.table, 1)  # the number of features, known to the kernels
        try:
            features = encoder(torch.rand(POINTS, 4, device=encoder.table.device))
            if features.requires_grad:
                features.sum().backward()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            for each in encoders:
                each.encode = encode_group
            reason = str(error).strip().partition("\n")[0]
            return f"the hash grids run unfused, several times slower: torch.compile failed ({reason})"
    scene.zero_grad(set_to_none=True)
    return None
