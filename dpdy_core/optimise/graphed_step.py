"""One reconstruction step as a CUDA graph: its thousand small kernels take longer to launch than to run."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

WARM_UP = 3  # calls before the capture, which choose algorithms and compile


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
        parameters = list(parameters)
        self._progress = torch.zeros((), device=generator.device)
        before = generator.get_state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                _forget(parameters)
                step(self._progress)
        torch.cuda.current_stream().wait_stream(side)
        _forget(parameters)  # so that the capture makes gradients of its own, which every replay overwrites
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            self._numbers = step(self._progress)
        self._gradients = [parameter.grad for parameter in parameters]
        self._parameters = parameters
        generator.set_state(before)

    def __call__(self, progress: float) -> dict[str, Tensor]:
        """Do the step at training `progress`; its numbers hold until the next call."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self._progress.fill_(progress)
        self._graph.replay()
        return self._numbers


def _forget(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
