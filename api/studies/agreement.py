"""How far voters agree with each other, and with themselves."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

Answer = int  # 1: the first of the pair is preferred, -1: the second, 0: a tie


@dataclass(frozen=True)
class Agreement:
    """Over every two voters of a pair: `same` is the share of equal answers, `u` is corrected for chance."""

    same: float
    u: float
    comparisons: int


def agreement(pairs: Iterable[Iterable[Answer]]) -> Agreement | None:
    """Agreement of the voters; `pairs` holds, of each pair, the answers of its voters. None if no two judged one.

    `u` is the coefficient of agreement of M. G. Kendall and B. Babington Smith, On the Method of Paired Comparisons,
    Biometrika 31 (1940): 1 when all agree, 0 by chance, negative when they disagree. Pairs weigh by their voters; a tie
    is half a preference for each side. Which of a pair is called first does not matter, unlike with a kappa.
    """
    same = concord = comparisons = 0
    for answers in pairs:
        given = list(answers)
        voters = len(given)
        counts = [given.count(answer) for answer in (1, 0, -1)]
        comparisons += voters * (voters - 1)
        same += sum(count * (count - 1) for count in counts)
        concord += (counts[0] - counts[2]) ** 2 - counts[0] - counts[2]
    return Agreement(same / comparisons, concord / comparisons, comparisons // 2) if comparisons else None


@dataclass(frozen=True)
class Consistency:
    """What became of the pairs that a voter was shown twice, the second time with sides swapped."""

    repeated: int
    contradictions: int

    @property
    def flagged(self) -> bool:
        """Whether half of the repeated pairs or more got opposite answers, as often as by tossing a coin."""
        return self.contradictions > 0 and 2 * self.contradictions >= self.repeated


def consistency(first: Mapping[Hashable, Answer], second: Mapping[Hashable, Answer]) -> Consistency:
    """One voter's first and second answers, by pair. Opposite preferences contradict each other; a tie does not."""
    again = [pair for pair in second if pair in first]
    return Consistency(len(again), sum(first[pair] * second[pair] < 0 for pair in again))
