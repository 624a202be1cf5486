"""Which pairs a voter is shown, in which order and on which side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

Pair = tuple[str, str]  # two clips


@dataclass(frozen=True)
class Showing:
    """One pair as one voter sees it. `swapped`: the second clip is on the left. `repeated`: for the second time."""

    pair: Pair
    swapped: bool
    repeated: bool


def draw_ballot(shown: Mapping[Pair, int], limit: int, repeats: int, random: Random) -> list[Showing]:
    """The pairs of a new voter in random order, each with a random side on the left.

    `shown`: how often each pair was given out so far; the `limit` least shown are taken, so that all get as many votes.
    Then `repeats` pairs of the first half come again, sides swapped, somewhere in the second half; fewer of a ballot
    that is too short.
    """
    pairs = list(shown)
    random.shuffle(pairs)
    pairs = sorted(pairs, key=lambda pair: shown[pair])[:limit]
    random.shuffle(pairs)
    first = [Showing(pair, random.random() < 0.5, repeated=False) for pair in pairs]
    half = (len(first) + 1) // 2
    repeated = random.sample(first[:half], min(repeats, half))
    rest = first[half:] + [Showing(showing.pair, not showing.swapped, repeated=True) for showing in repeated]
    random.shuffle(rest)
    return _apart(first[:half], rest)


def _apart(head: Sequence[Showing], tail: list[Showing]) -> list[Showing]:
    """Head and tail in one; a pair does not follow on itself if that can be helped."""
    if len(tail) > 1 and tail[0].pair == head[-1].pair:
        tail = [*tail[1:], tail[0]]
    return [*head, *tail]
