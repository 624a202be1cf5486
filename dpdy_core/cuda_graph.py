"""CUDA graphs: work that is captured once and replayed, where launching its kernels takes longer than running them."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

WARM_UP = 3  # calls before the capture, which choose algorithms, compile and allocate

Result = TypeVar("Result")


def capture(
    work: Callable[[], Result], generator: torch.Generator | None = None
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """`work` as a graph, and what it returned: tensors that every replay overwrites.

    Only for CUDA. `work` has fixed shapes, asks nothing of the host, and takes its random numbers from `generator`,
    which is left as it was. Raises RuntimeError where the capture fails; the device can then be used as before.
    """
    stream, pool = torch.cuda.current_stream(), torch.cuda.graph_pool_handle()
    default = torch.cuda.default_generators[torch.cuda.current_device()]
    generators = [default] if generator is None else [default, generator]
    states = [each.get_state() for each in generators]
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    try:
        side = torch.cuda.Stream()
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        stream.wait_stream(side)
        with torch.cuda.graph(graph, pool=pool):
            result = work()
    except RuntimeError as error:
        _give_up(stream, pool, generators)
        # torch.cuda.graph fails once more as it ends: the first failure is the cause
        raise RuntimeError(str(error.__context__ or error).strip().partition("\n")[0]) from error
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)
    return graph, result


def _give_up(stream: torch.cuda.Stream, pool: tuple[int, int], generators: list[torch.Generator]) -> None:
    """Put right what torch leaves half done when a capture fails: stream, memory pool, generators."""
    torch.cuda.set_stream(stream)
    with suppress(RuntimeError):  # the capture had not begun, or had ended
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    for each in generators:
        each.graphsafe_set_state(torch.Generator(each.device))
