from collections import Counter
from itertools import combinations, product
from random import Random

import pytest

from api.studies.agreement import agreement, consistency
from api.studies.ballot import draw_ballot

PAIRS = list(combinations("abcde", 2))


@pytest.mark.parametrize("repeats", [0, 3])
def test_a_ballot_has_every_pair_once_and_repeats_with_sides_swapped(repeats: int) -> None:
    for seed in range(50):
        ballot = draw_ballot(dict.fromkeys(PAIRS, 0), 100, repeats, Random(seed))
        first = [showing for showing in ballot if not showing.repeated]
        assert sorted(showing.pair for showing in first) == PAIRS
        assert len(ballot) == len(PAIRS) + repeats
        for again in (showing for showing in ballot if showing.repeated):
            before = next(showing for showing in first if showing.pair == again.pair)
            assert again.swapped is not before.swapped
            assert ballot.index(again) > ballot.index(before) + 1


def test_order_and_sides_are_random() -> None:
    ballots = [draw_ballot(dict.fromkeys(PAIRS, 0), 100, 0, Random(seed)) for seed in range(400)]
    starts = Counter(ballot[0].pair for ballot in ballots)
    assert set(starts) == set(PAIRS)
    assert max(starts.values()) < 80  # 40 each
    for place in (0, 9):
        assert 150 < sum(ballot[place].swapped for ballot in ballots) < 250


def test_pairs_that_were_shown_least_come_first() -> None:
    shown = dict.fromkeys(PAIRS, 0)
    for seed in range(25):
        for showing in draw_ballot(shown, 4, 0, Random(seed)):
            shown[showing.pair] += 1
    assert set(shown.values()) == {10}


@pytest.mark.parametrize(("pairs", "length"), [(1, 2), (2, 3), (3, 5)])
def test_a_short_ballot_has_as_many_repeats_as_fit(pairs: int, length: int) -> None:
    assert len(draw_ballot(dict.fromkeys(PAIRS[:pairs], 0), 10, 5, Random(0))) == length


def test_agreement_counts_every_two_voters() -> None:
    """Against the definition: the sums over all two voters of a pair, one by one."""
    random = Random(3)
    pairs = [[random.choice([-1, 0, 1]) for _ in range(random.randrange(6))] for _ in range(20)]
    couples = [couple for answers in pairs for couple in combinations(answers, 2)]
    found = agreement(pairs)
    assert found is not None
    assert found.comparisons == len(couples)
    assert found.same == pytest.approx(sum(a == b for a, b in couples) / len(couples))
    assert found.u == pytest.approx(sum(a * b for a, b in couples) / len(couples))


def test_agreement_is_one_when_all_agree_whichever_is_called_first() -> None:
    for answers in product([1, -1], repeat=3):
        found = agreement([[answer] * 4 for answer in answers])
        assert found is not None
        assert (found.same, found.u, found.comparisons) == (1, 1, 18)
    assert agreement([[1], [], [0]]) is None


def test_opposite_answers_to_one_pair_are_contradictions() -> None:
    first = {"p": 1, "q": -1, "r": 0, "s": 1}
    steady = consistency(first, {"p": 1, "q": 0, "r": 1})
    assert (steady.repeated, steady.contradictions, steady.flagged) == (3, 0, False)
    torn = consistency(first, {"p": -1, "q": 1, "r": 0, "s": 1})
    assert (torn.repeated, torn.contradictions, torn.flagged) == (4, 2, True)
    assert not consistency(first, {"p": -1, "q": -1, "s": 1}).flagged
    assert not consistency(first, {}).flagged
