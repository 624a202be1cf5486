"""One progress for a stage of several parts. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass, field

from dpdy_core.progress import Reporter

SCALE = 1000  # steps of a whole stage


@dataclass
class Portions:
    """Shares of a stage that its parts, done one after the other, take in turn: together they run once from 0 to 1.

    `weights` are about the time that each part takes, in any unit; a part that falls out leaves its share undone until
    the next one begins.
    """

    reporter: Reporter
    weights: dict[str, float]
    _begun: bool = field(default=False, init=False)

    def part(self, name: str) -> Callable[[int, int], None]:
        """`check(done, total)` of the part `name`, which reports the progress of the stage and may raise to stop."""
        names, whole = list(self.weights), sum(self.weights.values())
        before = sum(self.weights[other] for other in names[: names.index(name)])

        def check(done: int, total: int) -> None:
            share = (before + self.weights[name] * min(done / max(total, 1), 1.0)) / whole
            self.reporter.step(min(int(SCALE * share), SCALE - 1), SCALE)

        if not self._begun:  # the rate of a stage counts from its first step
            self.reporter.step(0, SCALE)
            self._begun = True
        return check

    def tell(self, **numbers: float) -> None:
        """Report `numbers` of the finished stage."""
        self.reporter.step(SCALE, SCALE, **numbers)
