"""The architecture of the bundled prior `dpdy-tiny`, and of a toy for tests, with random weights."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.tokenizer import build_tokenizer


@dataclass(frozen=True)
class Layout:
    """Sizes of an LDM3D-4c model with a VAE of factor 4 (three levels)."""

    resolution: int = 128
    latent_channels: int = 8  # 4, as LDM3D-4c has, keep too little of 128 pixels
    vae: tuple[int, int, int] = (48, 96, 128)
    unet: tuple[int, int, int] = (96, 144, 160)
    heads: tuple[int, int, int] = (4, 3, 5)
    norm_groups: int = 16
    text_width: int = 256
    text_layers: int = 4
    text_positions: int = 77
    completes: bool = True  # its UNet sees a picture with gaps beside the noise


TOY = Layout(
    resolution=32,
    latent_channels=4,
    vae=(8, 8, 16),
    unet=(16, 16, 32),
    heads=(2, 2, 2),
    norm_groups=8,
    text_width=16,
    text_layers=1,
    completes=False,
)


def build_tiny(words: Iterable[str] = (), seed: int = 0, layout: Layout | None = None) -> Ldm3d:
    """An untrained model of `layout` (that of dpdy-tiny) whose tokenizer knows `words`; equal seeds, equal weights."""
    layout = layout or Layout()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(words, layout.text_positions)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=layout.text_width,
                intermediate_size=2 * layout.text_width,
                num_hidden_layers=layout.text_layers,
                num_attention_heads=max(1, layout.text_width // 64),
                max_position_embeddings=layout.text_positions,
                projection_dim=layout.text_width,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        return Ldm3d(_vae(layout), _unet(layout), text_encoder, tokenizer, zero_snr_schedule())


def build_toy(seed: int = 0, completes: bool = False) -> Ldm3d:
    """A model of 0.4 million parameters at 32 pixels, for tests."""
    return build_tiny(seed=seed, layout=replace(TOY, completes=completes))


def widened(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """`unet`, whose input are latents alone, with room for a picture to complete, which changes nothing yet."""
    latents = unet.config.out_channels
    old = unet.conv_in
    conv = torch.nn.Conv2d(2 * latents + 1, old.out_channels, old.kernel_size, padding=old.padding).to(old.weight)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :latents] = old.weight
    conv.bias = old.bias
    unet.conv_in = conv
    unet.register_to_config(in_channels=2 * latents + 1)
    return unet


def zero_snr_schedule() -> DDIMScheduler:
    """v-prediction on LDM3D's betas rescaled to zero terminal SNR (Lin et al. 2023), so that samples can be dark."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def _vae(layout: Layout) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        latent_channels=layout.latent_channels,
        block_out_channels=layout.vae,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=layout.norm_groups,
        sample_size=layout.resolution,
    )


def _unet(layout: Layout) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=layout.resolution // 4,
        in_channels=layout.latent_channels * 2 + 1 if layout.completes else layout.latent_channels,
        out_channels=layout.latent_channels,
        block_out_channels=layout.unet,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=layout.heads,  # diffusers' old name for the number of heads
        norm_num_groups=layout.norm_groups,
        cross_attention_dim=layout.text_width,
    )
