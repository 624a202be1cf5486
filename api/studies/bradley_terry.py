"""Scores from paired comparisons with ties: Davidson's extension of the Bradley-Terry model.

R. R. Davidson, On Extending the Bradley-Terry Model to Accommodate Ties in Paired Comparison Experiments, Journal of
the American Statistical Association 65 (1970). With a score s for each item (the logarithm of Bradley's and Terry's
worth) and a tie strength v,

    P(i is preferred to j) : P(j is preferred to i) : P(tie)  =  exp(s_i) : exp(s_j) : v exp((s_i + s_j) / 2).

Without ties (v = 0) this is the model of R. A. Bradley and M. E. Terry, Biometrika 39 (1952).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 200
LONGEST_STEP = 1.0  # of one step of Newton's method: far from the optimum its steps are too long


@dataclass(frozen=True)
class Fit:
    """Scores (..., M) that sum to 0, their covariance (..., M, M) by the Hessian, tie strength (...)."""

    scores: Array
    covariance: Array
    tie_strength: Array


def fit(wins: Array, ties: Array | None = None) -> Fit:
    """The maximum likelihood of each table in a batch, by Newton's method (the logarithm of the likelihood is concave).

    `wins` (..., M, M): how often row was preferred to column. `ties` (..., M, M), symmetric: how often there was no
    difference; None where voters could not say so. The diagonals are ignored.

    Raises ValueError where no finite maximum exists, for instance for an item that always wins (L. R. Ford, 1957);
    `pseudo_votes` make one.
    """
    items = wins.shape[-1]
    off_diagonal = ~np.eye(items, dtype=bool)
    wins = np.where(off_diagonal, wins, 0.0)
    drawn = np.where(off_diagonal, 0.0 if ties is None else ties, 0.0)
    votes = wins + wins.swapaxes(-1, -2) + drawn
    parameters = np.zeros((*wins.shape[:-2], items + (ties is not None)))  # the scores, and log v
    for _ in range(STEPS):
        gradient, information = _derivatives(parameters, wins, drawn, votes, ties is not None)
        try:
            step = np.linalg.solve(information, gradient[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
        longest = np.abs(step).max(-1, keepdims=True)
        parameters = parameters + step / np.maximum(1.0, longest / LONGEST_STEP)
        if longest.max() < 1e-9:
            _, information = _derivatives(parameters, wins, drawn, votes, ties is not None)
            covariance = np.linalg.inv(information)[..., :items, :items] - 1 / items**2
            strength = np.exp(parameters[..., -1]) if ties is not None else np.zeros(wins.shape[:-2])
            return Fit(parameters[..., :items], covariance, strength)
    raise ValueError("the votes have no finite scores: add pseudo_votes")


def pseudo_votes(compared: NDArray[np.bool_]) -> Array:
    """Half a vote for each outcome of each pair that is compared (M, M), to be added to wins and to ties.

    The correction of J. B. S. Haldane (1956) and F. J. Anscombe (1956) for log odds: with two items and no ties the
    difference of the scores is log((a + 1/2) / (b + 1/2)). It keeps the score of a method that always wins finite.
    """
    return np.where(compared | compared.T, 0.5, 0.0)


def bootstrap(
    wins: Array, ties: Array | None, pseudo: Array, replicates: int = 1000, seed: int = 0
) -> tuple[Array, Array]:
    """Scores (B, M) and shares of preference (B, M, M) of tables made of voters drawn with replacement.

    `wins`, `ties` (V, M, M): one table a voter, as a voter's votes depend on each other. The pseudo votes are added to
    each drawn table. A tie is half a preference; shares of pairs that nobody compared are NaN.
    """
    voters, items = wins.shape[0], wins.shape[-1]
    drawn = np.random.default_rng(seed).multinomial(voters, np.full(voters, 1 / voters), size=replicates)

    def total(tables: Array) -> Array:
        return (drawn @ tables.reshape(voters, -1)).reshape(replicates, items, items)

    won = total(wins)
    tied = None if ties is None else total(ties)
    fitted = fit(won + pseudo, None if tied is None else tied + pseudo)
    return fitted.scores, shares(won, tied)


def shares(wins: Array, ties: Array | None) -> Array:
    """How often row was preferred to column (..., M, M), in [0, 1]; a tie is half a preference. NaN without votes."""
    half = 0.0 if ties is None else ties / 2
    votes = wins + wins.swapaxes(-1, -2) + 2 * half
    return np.where(votes > 0, (wins + half) / np.where(votes > 0, votes, 1), np.nan)


def _derivatives(parameters: Array, wins: Array, ties: Array, votes: Array, tied: bool) -> tuple[Array, Array]:
    """Gradient (..., P) and information (..., P, P) of the log likelihood.

    The information has 1 added between all scores: the likelihood does not know their sum, which so stays 0.
    """
    items = wins.shape[-1]
    scores = parameters[..., :items]
    ahead = (scores[..., :, None] - scores[..., None, :]) / 2
    log_tie = parameters[..., items, None, None] if tied else -np.inf
    normaliser = np.logaddexp(np.logaddexp(ahead, -ahead), log_tie)
    win, loss, tie = (np.exp(part - normaliser) for part in (ahead, -ahead, log_tie))

    gradient = np.empty_like(parameters)
    gradient[..., :items] = ((wins - wins.swapaxes(-1, -2)) - votes * (win - loss)).sum(-1) / 2
    curvature = votes * (win + loss - (win - loss) ** 2) / 4
    information = np.zeros((*parameters.shape, parameters.shape[-1]))
    information[..., :items, :items] = curvature.sum(-1)[..., None] * np.eye(items) - curvature + 1
    if tied:
        gradient[..., items] = (ties - votes * tie).sum((-1, -2)) / 2  # each pair stands in the table twice
        across = -(votes * tie * (win - loss)).sum(-1) / 2
        information[..., :items, items] = information[..., items, :items] = across
        information[..., items, items] = (votes * tie * (1 - tie)).sum((-1, -2)) / 2
    return gradient, information
