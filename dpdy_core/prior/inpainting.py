"""Pictures whose unknown part the prior paints: what it expects there, or image-to-image with the known part held."""

import torch
from torch import Tensor

from dpdy_core.prior.completion import filled, known_latents
from dpdy_core.prior.guidance import add_noise, predicted_clean, predicted_noise
from dpdy_core.prior.ldm3d import Ldm3d

EXPECTATIONS = 2  # noises from which a picture is expected, each also mirrored


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
    what the unknown part showed. A model that has learnt to complete is shown the known part all the time.
    """
    first = round(strength * len(model.alphas_cumprod)) - 1
    if first < 0 or steps < 1:
        return rgbd
    context = model.context(rgbd, known)
    own = model.encode(rgbd)
    held = known_latents(known, model.reduction)
    noise = torch.randn(own.shape, generator=generator, device=generator.device).to(own)
    spaced = [round((first + 1) * (1 - i / steps)) - 1 for i in range(steps)]
    latents = model.noisy(own, noise, own.new_full((len(own),), first, dtype=torch.long))
    for t, following in zip(spaced, [*spaced[1:], None], strict=True):
        timesteps = own.new_full((len(own),), max(t, 0), dtype=torch.long)
        alpha = model.alphas_cumprod[timesteps]
        with torch.autocast(own.device.type, torch.bfloat16, enabled=own.device.type == "cuda"):
            prediction = model.predict_guided(latents, timesteps, text, empty, guidance, context)
        clean = predicted_clean(prediction, latents, alpha, model.prediction_type)
        clean = torch.lerp(clean, own, held)
        if following is None:
            latents = clean
            break
        later = model.alphas_cumprod[max(following, 0)].expand_as(alpha)
        drift = torch.lerp(predicted_noise(prediction, latents, alpha, model.prediction_type), noise, held)
        latents = add_noise(clean, drift, later)
    return torch.where(known > 0.5, rgbd, model.decode(latents).float().clamp(-1, 1))


@torch.no_grad()
def expected(model: Ldm3d, rgbd: Tensor, known: Tensor, text: Tensor, generator: torch.Generator) -> Tensor:
    """`rgbd` (B, 4, H, W) in [-1, 1] with what a `model` that completes expects where it is not `known` (B, 1, H, W).

    The mean of its expectations from several noises and of the mirrored picture, under the prompt states `text`
    (B, L, D): all are guesses at the same mean, whose own errors differ. By what they miss the known part at its border
    the unknown part is shifted, smoothly, so that it goes on without a seam. Known pixels come back bit for bit.
    """
    guesses = []
    for picture, shown in ((rgbd, known), (rgbd.flip(-1), known.flip(-1))):
        context = model.context(picture, shown)
        if context is None:
            raise ValueError("the model has not learnt to complete pictures")
        for _ in range(EXPECTATIONS):
            shape = (len(rgbd), model.channels, *context.shape[2:])
            noise = torch.randn(shape, generator=generator, device=generator.device).to(rgbd)
            guess = model.decode(expected_latents(model, noise, text, context)).float()
            guesses.append(guess if picture is rgbd else guess.flip(-1))
    mean = torch.stack(guesses).mean(dim=0)
    return torch.where(known > 0.5, rgbd, (mean + filled(rgbd - mean, known)).clamp(-1, 1))


@torch.no_grad()
def expected_latents(model: Ldm3d, noise: Tensor, text: Tensor, context: Tensor) -> Tensor:
    """What `model` expects the latents to be, on average, given the known part in `context` and the prompt.

    Its prediction of the clean latents from `noise` (B, C, h, w) alone, where a schedule ends: the least squared error,
    blurred where much is possible.
    """
    timesteps = noise.new_full((len(noise),), len(model.alphas_cumprod) - 1, dtype=torch.long)
    with torch.autocast(noise.device.type, torch.bfloat16, enabled=noise.device.type == "cuda"):
        prediction = model.predict(noise, timesteps, text, context)
    return predicted_clean(prediction, noise, model.alphas_cumprod[timesteps], model.prediction_type)
