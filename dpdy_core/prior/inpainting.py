"""Pictures whose unknown part the prior paints anew: image-to-image with the known part held fast."""

import torch
from torch import Tensor
from torch.nn import functional

from dpdy_core.prior.guidance import add_noise, predicted_clean, predicted_noise
from dpdy_core.prior.ldm3d import Ldm3d


@torch.no_grad()
def inpaint(
    model: Ldm3d,
    rgbd: Tensor,
    known: Tensor,
    text: Tensor,
    empty: Tensor,
    strength: float,
    steps: int,
    guidance: float,
    generator: torch.Generator,
) -> Tensor:
    """`rgbd` (B, 4, H, W) in [-1, 1] with what is not `known` (B, 1, H, W; 1 or 0) painted anew by the prior.

    SDEdit with blended latents (Meng et al. 2022, section 3; Avrahami et al. 2023, section 3.2): the picture's latents
    are noised to the share `strength` of the schedule and denoised by `steps` of deterministic DDIM under the prompt
    states `text` and `empty` (B, L, D); before each step and after the last the known latents are the picture's own,
    with the noise they started with. Known pixels come back bit for bit. `strength` 0 returns the picture, 1 forgets
    what the unknown part showed.
    """
    first = round(strength * len(model.alphas_cumprod)) - 1
    if first < 0 or steps < 1:
        return rgbd
    own = model.encode(rgbd)
    held = known_latents(known, model.reduction)
    noise = torch.randn(own.shape, generator=generator, device=generator.device).to(own)
    spaced = [round((first + 1) * (1 - i / steps)) - 1 for i in range(steps)]
    latents = model.noisy(own, noise, own.new_full((len(own),), first, dtype=torch.long))
    for t, following in zip(spaced, [*spaced[1:], None], strict=True):
        timesteps = own.new_full((len(own),), max(t, 0), dtype=torch.long)
        alpha = model.alphas_cumprod[timesteps]
        with torch.autocast(own.device.type, torch.bfloat16, enabled=own.device.type == "cuda"):
            prediction = model.predict_guided(latents, timesteps, text, empty, guidance)
        clean = predicted_clean(prediction, latents, alpha, model.prediction_type)
        clean = torch.lerp(clean, own, held)
        if following is None:
            latents = clean
            break
        later = model.alphas_cumprod[max(following, 0)].expand_as(alpha)
        drift = torch.lerp(predicted_noise(prediction, latents, alpha, model.prediction_type), noise, held)
        latents = add_noise(clean, drift, later)
    return torch.where(known > 0.5, rgbd, model.decode(latents).float().clamp(-1, 1))


def known_latents(known: Tensor, reduction: int) -> Tensor:
    """(B, 1, h, w): 1 where all pixels of `known` (B, 1, H, W) that belong to a latent are 1, else 0."""
    return 1 - functional.max_pool2d((known < 0.5).to(known.dtype), reduction)
