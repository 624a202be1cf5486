"""From votes to scores, intervals and agreement; and the votes as a table."""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from api.db.models import Study, StudyClip, StudyPair
from api.studies import bradley_terry
from api.studies.agreement import Answer, Consistency, agreement, consistency
from api.studies.bradley_terry import Array
from api.studies.schemas import AgreementOut, Comparison, MethodScore, ResultsOut, StudyOut, VoterOut

Z95 = 1.959964
ENOUGH_VOTERS = 10  # a bootstrap over fewer says too little about others
COLUMNS = (
    *("voter", "flagged", "number", "scene", "left", "right", "choice", "preferred", "repeated", "shown_at"),
    *("voted_at", "seconds"),
)
Votes = Sequence[tuple[int, StudyPair]]


@dataclass(frozen=True)
class Tables:
    """Votes by voter and method: wins of row over column, ties (symmetric), both (V, M, M); which were compared."""

    wins: Array
    ties: Array
    compared: np.ndarray


def results(study: Study, clips: Sequence[StudyClip], votes: Votes, with_flagged: bool) -> ResultsOut:
    """Everything that the votes say. Flagged voters count only `with_flagged`; repeated pairs never do."""
    checks = check_voters(votes)
    counted = [
        (voter, pair) for voter, pair in votes if not pair.repeated and (with_flagged or not checks[voter].flagged)
    ]
    methods = sorted({clip.method for clip in clips})
    tables = _tables(clips, methods, counted)
    by_pair: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for _, pair in counted:
        by_pair[pair.first_id, pair.second_id].append(answer(pair))
    agreed = agreement(by_pair.values())
    choices: dict[int, list[str | None]] = defaultdict(list)
    for voter, pair in votes:
        choices[voter].append(pair.choice)
    left_out = 0 if with_flagged else sum(check.flagged for check in checks.values())
    scores, comparisons, interval, strength = _scores(study, methods, tables)
    return ResultsOut(
        study=StudyOut.of(study),
        model="davidson" if study.ties else "bradley-terry",
        tie_strength=strength,
        interval=interval,
        votes=len(counted),
        methods=scores,
        comparisons=comparisons,
        agreement=AgreementOut(same=agreed.same, u=agreed.u, comparisons=agreed.comparisons) if agreed else None,
        voters=[_voter(number, choices[number], check) for number, check in checks.items()],
        notes=_notes(methods, tables, len(counted), left_out),
    )


def answer(pair: StudyPair) -> Answer:
    """1 if the first clip was preferred, -1 if the second, 0 for a tie."""
    if pair.choice == "tie":
        return 0
    return 1 if (pair.choice == "left") != pair.swapped else -1


def check_voters(votes: Votes) -> dict[int, Consistency]:
    """How each voter who voted did on the pairs that were shown twice."""
    answers: dict[int, tuple[dict, dict]] = defaultdict(lambda: ({}, {}))
    for voter, pair in votes:
        answers[voter][pair.repeated][pair.first_id, pair.second_id] = answer(pair)
    return {voter: consistency(first, second) for voter, (first, second) in answers.items()}


def votes_csv(clips: Sequence[StudyClip], votes: Votes) -> str:
    """One line a vote, repeats included, with what stood on which side. Voters are numbers."""
    by_id = {clip.id: clip for clip in clips}
    checks = check_voters(votes)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for voter, pair in votes:
        first, second = by_id[pair.first_id], by_id[pair.second_id]
        left, right = (second, first) if pair.swapped else (first, second)
        preferred = {"left": left.method, "right": right.method, "tie": "tie"}[str(pair.choice)]
        times = [time.isoformat() if time else "" for time in (pair.shown_at, pair.voted_at)]
        seconds = (pair.voted_at - pair.shown_at).total_seconds() if pair.voted_at and pair.shown_at else ""
        flags = (int(checks[voter].flagged), pair.number)
        shown = (first.scene, left.method, right.method, pair.choice, preferred, int(pair.repeated))
        table.writerow((voter, *flags, *shown, *times, seconds))
    return text.getvalue()


def _tables(clips: Sequence[StudyClip], methods: Sequence[str], votes: Votes) -> Tables:
    place = {clip.id: methods.index(clip.method) for clip in clips}
    compared = np.zeros((len(methods), len(methods)), bool)
    for one in clips:
        for other in clips:
            compared[place[one.id], place[other.id]] |= one.scene == other.scene and one.id != other.id
    row = {voter: number for number, voter in enumerate(dict.fromkeys(voter for voter, _ in votes))}
    wins, ties = np.zeros((2, len(row), len(methods), len(methods)))
    for voter, pair in votes:
        first, second, said = place[pair.first_id], place[pair.second_id], answer(pair)
        if said == 0:
            ties[row[voter], first, second] += 1
            ties[row[voter], second, first] += 1
        else:
            wins[row[voter], *((first, second) if said > 0 else (second, first))] += 1
    return Tables(wins, ties, compared)


def _scores(
    study: Study, methods: Sequence[str], tables: Tables
) -> tuple[list[MethodScore], list[Comparison], str, float | None]:
    pseudo = bradley_terry.pseudo_votes(tables.compared)
    wins, ties = tables.wins.sum(0), tables.ties.sum(0)
    fitted = bradley_terry.fit(wins + pseudo, ties + pseudo if study.ties else None)
    share = bradley_terry.shares(wins, ties)
    voters = len(tables.wins)
    if voters >= ENOUGH_VOTERS:
        drawn, drawn_shares = bradley_terry.bootstrap(tables.wins, tables.ties if study.ties else None, pseudo)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        share_low, share_high = _quantiles(drawn_shares)
        interval = f"bootstrap over {voters} voters"
    else:
        error = Z95 * np.sqrt(np.diag(fitted.covariance))
        low, high = fitted.scores - error, fitted.scores + error
        share_low, share_high = _wilson(share, wins + wins.T + ties)
        interval = "Hessian of the likelihood, votes taken as independent (too few voters for a bootstrap over them)"
    order = np.argsort(-fitted.scores, kind="stable")
    scores = [
        MethodScore(
            method=methods[index],
            rank=rank,
            score=fitted.scores[index],
            low=low[index],
            high=high[index],
            wins=wins[index].sum(),
            ties=ties[index].sum(),
            losses=wins[:, index].sum(),
        )
        for rank, index in enumerate(order, start=1)
    ]
    comparisons = [
        Comparison(
            first=methods[a],
            second=methods[b],
            wins=wins[a, b],
            ties=ties[a, b],
            losses=wins[b, a],
            preferred=_number(share[a, b]),
            low=_number(share_low[a, b]),
            high=_number(share_high[a, b]),
        )
        for number, a in enumerate(order)
        for b in order[number + 1 :]
        if tables.compared[a, b]
    ]
    return scores, comparisons, interval, float(fitted.tie_strength) if study.ties else None


def _quantiles(shares: Array) -> tuple[Array, Array]:
    """2.5 and 97.5 % of shares (B, M, M); NaN for pairs without votes, which some of the draws lack by chance."""
    some = np.isfinite(shares).any(0)
    low, high = np.nanquantile(np.where(some, shares, 0.5), [0.025, 0.975], axis=0)
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def _wilson(share: Array, votes: Array) -> tuple[Array, Array]:
    """E. B. Wilson's 95 % interval of a share (1927); NaN without votes."""
    count = np.where(votes > 0, votes, 1)
    middle = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 * np.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2)) / (1 + Z95**2 / count)
    return middle - half, middle + half


def _voter(number: int, choices: list[str | None], check: Consistency) -> VoterOut:
    return VoterOut(
        voter=number,
        votes=len(choices),
        repeated=check.repeated,
        contradictions=check.contradictions,
        left=choices.count("left"),
        right=choices.count("right"),
        flagged=check.flagged,
    )


def _notes(methods: Sequence[str], tables: Tables, votes: int, left_out: int) -> list[str]:
    notes = ["half a vote is added to each outcome of each compared pair, so that all scores are finite"]
    if left_out:
        notes.append(f"voters who contradict themselves are left out: {left_out}")
    if not votes:
        return [*notes, "there are no votes yet: the scores say nothing"]
    met = (tables.wins + tables.ties).sum(0)
    lacking = np.argwhere(np.triu(tables.compared & ((met + met.T) == 0), 1))
    if len(lacking):
        names = ", ".join(f"{methods[a]} and {methods[b]}" for a, b in lacking)
        notes.append(f"no votes yet between {names}")
    return notes


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
