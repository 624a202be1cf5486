"""A training phase that is given seconds, not steps."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from dpdy_core.errors import JobFailed
from dpdy_core.progress import Reporter


class Phase:
    """Steps until a deadline. `progress` is the share of the time that has gone, which schedules are keyed on."""

    def __init__(self, name: str, deadline: float, reporter: Reporter, tick: float = 2.0) -> None:
        """`deadline` on the `time.monotonic` clock; `tick` seconds between two reports."""
        self.name, self.deadline, self.tick = name, deadline, tick
        self.began = time.monotonic()
        self.step = 0
        self.ticking = False
        self._reporter = reporter
        self._ticked = self.began
        reporter.start(name)

    @property
    def progress(self) -> float:
        return min(1.0, (time.monotonic() - self.began) / max(self.deadline - self.began, 1e-9))

    def __iter__(self) -> Iterator[int]:
        """Step numbers from 1, at least one; `ticking` is True in steps where it is time to look at numbers."""
        while self.step == 0 or time.monotonic() < self.deadline:
            self.step += 1
            now = time.monotonic()
            self.ticking = now - self._ticked >= self.tick
            if self.ticking:
                self._ticked = now
            yield self.step

    def report(self, samples: int, **numbers: float) -> None:
        """Report `numbers` and the rate, when `samples` a step were trained on."""
        elapsed = time.monotonic() - self.began
        total = max(1, round(self.deadline - self.began))
        rate = self.step * samples / max(elapsed, 1e-9)
        self._reporter.step(min(round(elapsed), total), total, steps=self.step, samples_per_second=rate, **numbers)

    def done(self, **numbers: float) -> dict[str, float]:
        """Report the end; returns `numbers` with steps and seconds."""
        self._reporter.done(**numbers)
        return {**numbers, "steps": self.step, "seconds": round(time.monotonic() - self.began, 1)}


def learning_rate(peak: float, progress: float, warmup: float = 0.02, flat: float = 0.4, end: float = 0.01) -> float:
    """Linear warm-up over the share `warmup`, flat until the share `flat`, then a cosine down to `end` of the peak."""
    if progress < warmup:
        return peak * max(progress / warmup, 0.01)
    if progress < flat:
        return peak
    cosine = 0.5 + 0.5 * math.cos(math.pi * (progress - flat) / (1 - flat))
    return peak * (end + (1 - end) * cosine)


def checked(loss: Tensor, what: str) -> float:
    """The loss as a number. Raises JobFailed if it isn't finite."""
    value = float(loss.detach())
    if value != value or abs(value) == float("inf"):
        raise JobFailed(f"{what} diverged: its loss is {value}", "lower the learning rate or change the seed")
    return value


class Average:
    """Exponential moving averages of modules' parameters, kept in frozen copies of the modules."""

    def __init__(self, live: list[torch.nn.Module], averaged: list[torch.nn.Module], decay: float) -> None:
        self.decay = decay
        self._live: list[torch.Tensor] = [p for module in live for p in module.parameters()]
        self._averaged: list[torch.Tensor] = [p for module in averaged for p in module.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the live values; the first steps weigh more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._live, 1 - decay)
