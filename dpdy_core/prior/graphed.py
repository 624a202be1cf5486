"""The UNet as a CUDA graph: at small sizes launching its kernels takes many times as long as running them."""

from collections.abc import Callable
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dpdy_core.cuda_graph import capture

Prediction = Callable[[Tensor, Tensor, Tensor], Tensor]  # noisy (B, C, h, w), timesteps (B,), text (B, L, D)


class _Predict(nn.Module):
    """A module of tensors alone, as graphs need it, in bfloat16."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        # a captured graph must not read autocast's cache of weights, which dies with the capture
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            prediction: Tensor = self.unet(noisy, timesteps, encoder_hidden_states=text, return_dict=False)[0]
        return prediction.float()


def graph_training(unet: UNet2DConditionModel, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Prediction:
    """The UNet's raw prediction in float32 as graphs of forward and backward, for arguments shaped like these.

    Only for CUDA. The parameters that ask for a gradient get one; the arguments don't. Later calls must keep the
    shapes, and parameters must be changed in place. Raises RuntimeError where the capture fails.
    """
    samples = (noisy.clone(), timesteps.clone(), text.clone())
    module = _Predict(unet).train(unet.training)
    return cast(Prediction, torch.cuda.make_graphed_callables(module, samples))


@torch.no_grad()
def graph_inference(unet: UNet2DConditionModel, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Prediction:
    """The UNet's raw prediction in float32 as one graph without gradients, for arguments shaped like these.

    Only for CUDA; the weights must stay where they are. Raises RuntimeError where the capture fails.
    """
    inputs = (noisy.clone(), timesteps.clone(), text.clone())
    module = _Predict(unet)
    graph, output = capture(lambda: module(*inputs))

    def replay(*arguments: Tensor) -> Tensor:
        for place, value in zip(inputs, arguments, strict=True):
            place.copy_(value)
        graph.replay()
        return output.clone()

    return replay
