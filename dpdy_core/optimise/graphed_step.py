"""One step of the optimisation as a CUDA graph: its thousand small kernels take longer to launch than to run."""

from collections.abc import Callable, Iterable
from typing import Optional

import torch
from torch import Tensor, nn

from dpdy_core.cuda_graph import capture


class GraphedStep:
    """`step(progress)`, forward and backward, captured once and replayed. Only for CUDA.

    `step` must ask nothing of the host: shapes are fixed, `progress` comes as a 0-dim tensor, random numbers from
    `generator`. Its gradients land in `parameters`, where further backward passes may add to them; the next replay
    starts them anew, unless the step is one that is `added` to another.
    """

    def __init__(
        self,
        step: Callable[[Tensor], dict[str, Tensor]],
        parameters: Iterable[nn.Parameter],
        generator: torch.Generator,
        added: Optional["GraphedStep"] = None,
    ) -> None:
        """Captures. With `added` the step adds to the gradients of that one, which is always replayed before it.

        The generator is left as it was. Raises RuntimeError where the capture fails.
        """
        self.parameters = list(parameters)
        self.gradients: list[Tensor | None] = [None] * len(self.parameters) if added is None else added.gradients
        self._progress = torch.zeros((), device=generator.device)

        def work() -> dict[str, Tensor]:
            self._give()
            return step(self._progress)

        self._graph, self._numbers = capture(work, generator)
        found = [parameter.grad for parameter in self.parameters]
        if added is not None and any(a is not b for a, b in zip(found, self.gradients, strict=True)):
            raise RuntimeError("the step has gradients where the one it is added to has none")
        self.gradients = found

    def __call__(self, progress: float) -> dict[str, Tensor]:
        """Do the step at training `progress`; its numbers hold until the next call."""
        self._give()
        self._progress.fill_(progress)
        self._graph.replay()
        return dict(self._numbers)

    def _give(self) -> None:
        """Put the gradients that the graph writes, or None before the capture has made them, into their places."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
