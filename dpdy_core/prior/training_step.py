"""One step of pretraining: gradient, clipping, AdamW; on CUDA as a graph, since launching costs more than computing."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dpdy_core.cuda_graph import capture

LARGEST_NORM = 1.0  # of the gradient

Loss = Callable[..., Tensor]  # tensors to a scalar


class TrainingStep:
    """Steps of AdamW on `parameters`. Random numbers inside a loss must come from `generator`."""

    def __init__(
        self, parameters: Iterable[Tensor], weight_decay: float, generator: torch.Generator, graphs: bool = True
    ) -> None:
        """`graphs` is for CUDA alone; without it every kernel is launched by itself."""
        self.parameters = list(parameters)
        self.generator = generator
        device = self.parameters[0].device
        self.cuda = device.type == "cuda"
        self.graphs = graphs and self.cuda
        self.rate = torch.zeros((), device=device)
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=self.rate if self.graphs else 0.0,
            betas=(0.9, 0.99),
            weight_decay=weight_decay,
            fused=self.cuda,
            capturable=self.graphs,
        )
        self._captured: dict[tuple[Loss, tuple[torch.Size, ...]], tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]]
        self._captured = {}

    def __call__(self, loss: Loss, rate: float, *inputs: Tensor) -> Tensor:
        """One step at the learning rate `rate`; returns `loss(*inputs)`, which the next step may overwrite.

        Raises RuntimeError where the capture of a graph fails.
        """
        if not self.graphs:
            self.optimiser.param_groups[0]["lr"] = rate
            return self._step(loss, inputs)
        self.rate.fill_(rate)
        key = (loss, tuple(tensor.shape for tensor in inputs))
        if key not in self._captured:
            self._captured[key] = self._capture(loss, inputs)
        graph, places, value = self._captured[key]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return value

    def _capture(self, loss: Loss, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        places = [tensor.clone() for tensor in inputs]
        graph, value = capture(lambda: self._step(loss, places), self.generator)
        return graph, places, value

    def _step(self, loss: Loss, inputs: Iterable[Tensor]) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)  # so that a graph owns its gradients
        value = loss(*inputs)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, LARGEST_NORM)
        self.optimiser.step()
        return value.detach()
