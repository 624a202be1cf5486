from math import log, sqrt

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from api.studies.bradley_terry import bootstrap, fit, pseudo_votes, shares


def table(first: float, second: float) -> np.ndarray:
    return np.array([[0, first], [second, 0.0]])


def draw(rng: np.random.Generator, scores: np.ndarray, strength: float, votes: int) -> tuple[np.ndarray, np.ndarray]:
    """Wins and ties of `votes` comparisons of each pair."""
    wins, ties = np.zeros((2, len(scores), len(scores)))
    for i in range(len(scores)):
        for j in range(i):
            odds = np.array([np.exp(scores[i]), np.exp(scores[j]), strength * np.exp((scores[i] + scores[j]) / 2)])
            wins[i, j], wins[j, i], ties[i, j] = rng.multinomial(votes, odds / odds.sum())
    return wins, ties + ties.T


def slow_fit(wins: np.ndarray, ties: np.ndarray | None) -> np.ndarray:
    """Scores and log tie strength by a general optimiser, from the model's definition, vote kind by vote kind."""
    items = len(wins)

    def surprise(parameters: np.ndarray) -> float:
        scores = np.append(parameters[: items - 1], -parameters[: items - 1].sum())
        total = 0.0
        for i in range(items):
            for j in range(i):
                terms = [scores[i], scores[j]]
                counts = [wins[i, j], wins[j, i]]
                if ties is not None:
                    terms.append(parameters[-1] + (scores[i] + scores[j]) / 2)
                    counts.append(ties[i, j])
                total -= sum(n * (term - logsumexp(terms)) for n, term in zip(counts, terms, strict=True))
        return total

    start = np.zeros(items - 1 + (ties is not None))
    found = minimize(surprise, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 20_000})
    assert found.success
    last = -found.x[: items - 1].sum()
    return np.insert(found.x, items - 1, last)


def test_two_items_without_ties_are_the_log_odds() -> None:
    found = fit(table(30, 12))
    np.testing.assert_allclose(found.scores, [log(30 / 12) / 2, -log(30 / 12) / 2], atol=1e-12)
    contrast = np.array([1, -1])
    assert sqrt(contrast @ found.covariance @ contrast) == pytest.approx(sqrt(1 / 30 + 1 / 12))
    assert found.tie_strength == 0


def test_two_items_with_ties_have_a_closed_form() -> None:
    """As many free shares as parameters: the fit is exact."""
    found = fit(table(30, 12), table(9, 9))
    assert found.scores[0] - found.scores[1] == pytest.approx(log(30 / 12))
    assert found.tie_strength == pytest.approx(9 / sqrt(30 * 12))
    contrast = np.array([1, -1])  # the ties say nothing about the difference
    assert sqrt(contrast @ found.covariance @ contrast) == pytest.approx(sqrt(1 / 30 + 1 / 12))


def test_half_a_vote_keeps_the_one_that_always_wins_finite() -> None:
    wins = table(20, 0)
    with pytest.raises(ValueError, match="no finite scores"):
        fit(wins)
    with pytest.raises(ValueError, match="no finite scores"):
        fit(np.array([[0, 5, 5], [0, 0, 2], [0, 3, 0.0]]), np.zeros((3, 3)))
    found = fit(wins + pseudo_votes(table(1, 0) > 0))
    assert found.scores[0] - found.scores[1] == pytest.approx(log(20.5 / 0.5))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("items", [3, 4])
def test_the_fit_is_that_of_a_slow_optimiser(items: int, tied: bool) -> None:
    rng = np.random.default_rng(items)
    wins, ties = draw(rng, rng.normal(size=items), 0.7, 25)
    wins, ties = wins + rng.uniform(0.5, 1, wins.shape), ties + 0.5
    found = fit(wins, ties if tied else None)
    slow = slow_fit(wins, ties if tied else None)
    np.testing.assert_allclose(found.scores, slow[:items], atol=1e-6)
    if tied:
        assert log(found.tie_strength) == pytest.approx(slow[-1], abs=1e-6)


def test_the_covariance_is_that_of_finite_differences() -> None:
    """The scores answer to votes as the covariance says: their derivative by a win is covariance @ (e_i - e_j) loss."""
    rng = np.random.default_rng(5)
    wins, ties = draw(rng, np.array([0.8, 0.1, -0.9]), 0.6, 40)
    wins, ties = wins + 1, ties + 1
    found = fit(wins)
    more = wins.copy()
    more[0, 1] += 1e-4
    loses = 1 / (1 + np.exp(found.scores[0] - found.scores[1]))
    np.testing.assert_allclose(
        (fit(more).scores - found.scores) / 1e-4, found.covariance @ [loses, -loses, 0], rtol=1e-3, atol=1e-8
    )


def test_a_batch_is_fitted_as_its_tables_are() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw(rng, np.array([1.0, 0.0, -1.0]), 0.5, 30) for _ in range(4)]
    wins, ties = (np.stack(part) + pseudo_votes(np.ones((3, 3), bool)) for part in zip(*drawn, strict=True))
    together = fit(wins, ties)
    for number in range(4):
        alone = fit(wins[number], ties[number])
        np.testing.assert_allclose(together.scores[number], alone.scores, atol=1e-9)
        np.testing.assert_allclose(together.covariance[number], alone.covariance, atol=1e-9)


def test_many_votes_give_back_the_scores_that_made_them() -> None:
    truth = np.array([1.2, 0.3, -0.2, -1.3])
    wins, ties = draw(np.random.default_rng(0), truth, 0.8, 200_000)
    found = fit(wins, ties)
    np.testing.assert_allclose(found.scores, truth, atol=0.02)
    assert found.tie_strength == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("votes", [1, 10_000_000])
def test_extreme_tables_have_scores(votes: int) -> None:
    rng = np.random.default_rng(2)
    wins = np.triu(rng.integers(0, votes + 1, (12, 12))).astype(float)  # each beats all that come after
    pseudo = pseudo_votes(np.ones((12, 12), bool))
    scores = fit(wins + pseudo, np.zeros((12, 12)) + pseudo).scores
    assert np.isfinite(scores).all()
    assert abs(scores.sum()) < 1e-6
    assert np.argmax(scores) == 0 or votes == 1


def test_the_bootstrap_draws_voters_and_not_votes() -> None:
    """20 voters with 50 equal votes each know as much as 20 votes, not as 1000."""
    wins = np.stack([table(50, 0)] * 10 + [table(0, 50)] * 10)
    scores, share = bootstrap(wins, None, pseudo_votes(table(1, 1) > 0), 2000)
    assert share[:, 0, 1].std() == pytest.approx(sqrt(0.25 / 20), rel=0.1)
    low, high = np.quantile(scores[:, 0] - scores[:, 1], [0.025, 0.975])
    assert low < -0.6 < 0.6 < high
    again, _ = bootstrap(wins, None, pseudo_votes(table(1, 1) > 0), 2000)
    np.testing.assert_array_equal(scores, again)


def test_a_tie_is_half_a_preference() -> None:
    np.testing.assert_allclose(shares(table(6, 2), table(4, 4)), [[np.nan, 8 / 12], [4 / 12, np.nan]])
