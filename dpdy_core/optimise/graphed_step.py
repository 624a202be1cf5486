"""One step of the optimisation as a CUDA graph: its thousand small kernels take longer to launch than to run."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dpdy_core.cuda_graph import capture


class GraphedStep:
    """`step(progress)`, forward and backward, captured once and replayed. Only for CUDA.

    `step` must ask nothing of the host: shapes are fixed, `progress` comes as a 0-dim tensor, random numbers from
    `generator`. Its gradients land in `parameters`, where further backward passes may add to them; the next replay
    starts them anew.
    """

    def __init__(
        self,
        step: Callable[[Tensor], dict[str, Tensor]],
        parameters: Iterable[nn.Parameter],
        generator: torch.Generator,
    ) -> None:
        """Captures. The generator is left as it was. Raises RuntimeError where the capture fails."""
        self._parameters = list(parameters)
        self._progress = torch.zeros((), device=generator.device)

        def work() -> dict[str, Tensor]:
            for parameter in self._parameters:  # so that the capture makes gradients of its own
                parameter.grad = None
            return step(self._progress)

        self._graph, self._numbers = capture(work, generator)
        self._gradients = [parameter.grad for parameter in self._parameters]

    def __call__(self, progress: float) -> dict[str, Tensor]:
        """Do the step at training `progress`; its numbers hold until the next call."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self._progress.fill_(progress)
        self._graph.replay()
        return dict(self._numbers)
