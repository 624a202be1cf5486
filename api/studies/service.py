"""Studies: made, joined by voters, voted in, closed, deleted. All functions take an open session and do not commit."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from random import SystemRandom

from sqlalchemy import delete as delete_from
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.db import queries
from api.db.models import Study, StudyClip, StudyPair, StudyVoter, now
from api.errors import FieldErrors, ServiceError, invalid
from api.jobs import states
from api.jobs.files import new_id
from api.jobs.submission import ready_upload
from api.studies.ballot import Pair, draw_ballot
from api.studies.schemas import MAX_METHODS, MAX_PAIRS, MAX_VOTERS, ClipRequest, StudyRequest

PLAYABLE = ("video/mp4", "video/webm")


def create(session: Session, request: StudyRequest) -> Study:
    """A new study. Everything that can be wrong with its clips is found now."""
    if errors := _unfit(request.clips):
        raise invalid(errors)
    study = Study(
        id=new_id("study"),
        name=request.name,
        question=request.question,
        ties=request.ties,
        repeats=request.repeats,
        pairs_per_voter=request.pairs_per_voter,
        voters=0,
        created_at=now(),
    )
    session.add(study)
    session.flush()
    for number, clip in enumerate(request.clips):
        _check_source(session, clip, f"clips.{number}")
        source = {"job_id": clip.job_id, "path": clip.path if clip.job_id else None, "upload_id": clip.upload_id}
        names = {"scene": clip.scene, "method": clip.method}
        session.add(StudyClip(id=new_id("clip"), study_id=study.id, **names, **source))
    return study


def join(session: Session, study: Study, voter_id: str | None = None) -> StudyVoter:
    """A voter with a ballot of their own: a new one, or the one with this id if it came before."""
    _take_turn(session, study)
    if voter_id is not None and (known := queries.study_voter(session, study.id, voter_id)):
        return known
    voter = _add_voters(session, study, [voter_id or new_id("voter")])[0]
    deal(session, study, voter)
    return voter


def invite(session: Session, study: Study, count: int) -> list[StudyVoter]:
    """So many voters who have not come yet: each gets a ballot when it first looks."""
    return _add_voters(session, study, [new_id("voter") for _ in range(count)])


def deal(session: Session, study: Study, voter: StudyVoter) -> None:
    """Draw the ballot of a voter who has none yet."""
    _take_turn(session, study)
    if queries.pairs_of_voter(session, voter.id):
        return
    _check_open(study)
    shown = queries.times_shown(session, study.id)
    pairs = {pair: shown.get(pair, 0) for pair in pairs_of(queries.study_clips(session, study.id))}
    ballot = draw_ballot(pairs, study.pairs_per_voter, study.repeats, SystemRandom())
    for place, showing in enumerate(ballot, start=1):
        first, second = showing.pair
        flags = {"swapped": showing.swapped, "repeated": showing.repeated}
        clips = {"first_id": first, "second_id": second}
        session.add(StudyPair(id=new_id("pair"), voter_id=voter.id, number=place, **clips, **flags))
    session.flush()


def _take_turn(session: Session, study: Study) -> None:
    """Wait until nobody else draws a ballot of this study, up to the end of the transaction."""
    session.execute(update(Study).where(Study.id == study.id).values(voters=Study.voters))
    session.refresh(study)


def _add_voters(session: Session, study: Study, ids: Sequence[str]) -> list[StudyVoter]:
    _take_turn(session, study)
    _check_open(study)
    if study.voters + len(ids) > MAX_VOTERS:
        detail = f"{MAX_VOTERS} voters may take part in a study, and {study.voters} do"
        raise ServiceError(409, "study-full", "The study is full", detail, "make another study")
    numbers = range(study.voters + 1, study.voters + 1 + len(ids))
    made = [
        StudyVoter(id=name, study_id=study.id, number=number, created_at=now())
        for name, number in zip(ids, numbers, strict=True)
    ]
    study.voters += len(ids)
    session.add_all(made)
    session.flush()
    return made


def voter_of(session: Session, study: Study, voter_id: str) -> StudyVoter:
    """Raises 422 for a voter of no or another study."""
    voter = queries.study_voter(session, study.id, voter_id)
    if voter is None:
        raise _unknown("voter", f"study {study.id} has no such voter", "join the study first")
    return voter


def next_pair(session: Session, voter: StudyVoter) -> tuple[int, int, StudyPair | None]:
    """How many pairs the voter has judged, of how many, and the next one; its time begins when it is first shown."""
    pairs = queries.pairs_of_voter(session, voter.id)
    waiting = [pair for pair in pairs if pair.choice is None]
    if waiting and waiting[0].shown_at is None:
        waiting[0].shown_at = now()
    return len(pairs) - len(waiting), len(pairs), waiting[0] if waiting else None


def vote(session: Session, study: Study, voter: StudyVoter, pair_id: str, choice: str) -> None:
    """Record what a voter prefers, once a pair."""
    _check_open(study)
    if choice == "tie" and not study.ties:
        raise invalid([{"field": "choice", "detail": "this study asks for left or right"}])
    mine = (StudyPair.id == pair_id, StudyPair.voter_id == voter.id)
    statement = update(StudyPair).where(*mine, StudyPair.choice.is_(None)).values(choice=choice, voted_at=now())
    cast = session.scalar(statement.returning(StudyPair.id).execution_options(synchronize_session=False))
    if cast is None:
        if session.scalar(select(StudyPair.id).where(*mine)) is None:
            raise _unknown("pair", "this voter was not given such a pair", "vote for the pair that the ballot names")
        detail = "this pair has the voter's vote already"
        raise ServiceError(409, "already-voted", "One vote a pair and voter", detail, "ask for the next pair")


def close(session: Session, study: Study) -> Study:
    """Take no more votes, and let go of jobs and uploads. Repeats are harmless."""
    study.closed_at = study.closed_at or now()
    session.add(study)
    return study


def delete(session: Session, study: Study) -> None:
    """Remove a study with its votes."""
    voters = select(StudyVoter.id).where(StudyVoter.study_id == study.id)
    session.execute(delete_from(StudyPair).where(StudyPair.voter_id.in_(voters)))
    for table in (StudyVoter, StudyClip):
        session.execute(delete_from(table).where(table.study_id == study.id))
    session.execute(delete_from(Study).where(Study.id == study.id))


def pairs_of(clips: Sequence[StudyClip]) -> list[Pair]:
    """Every two clips of one scene, each pair in the order of its ids."""
    couples = [tuple(sorted((a.id, b.id))) for a, b in combinations(clips, 2) if a.scene == b.scene]
    return [(first, second) for first, second in couples]


def _check_open(study: Study) -> None:
    if study.closed_at:
        detail = f"study {study.id} was closed at {study.closed_at.isoformat(timespec='seconds')}"
        raise ServiceError(409, "study-closed", "The study takes no more votes", detail)


def _unfit(clips: Sequence[ClipRequest]) -> FieldErrors:
    """What is wrong with a set of clips, whatever their sources."""
    errors: FieldErrors = []
    scenes = Counter(clip.scene for clip in clips)
    seen: set[tuple[str, str]] = set()
    for number, clip in enumerate(clips):
        if (clip.scene, clip.method) in seen:
            detail = f"{clip.method!r} has another clip of scene {clip.scene!r}"
            errors.append({"field": f"clips.{number}", "detail": detail})
        elif scenes[clip.scene] == 1:
            detail = f"scene {clip.scene!r} has no second clip to compare with"
            errors.append({"field": f"clips.{number}", "detail": detail})
        seen.add((clip.scene, clip.method))
    methods = {clip.method for clip in clips}
    pairs = sum(count * (count - 1) // 2 for count in scenes.values())
    if len(methods) > MAX_METHODS:
        errors.append({"field": "clips", "detail": f"{len(methods)} methods; there may be {MAX_METHODS}"})
    if pairs > MAX_PAIRS:
        errors.append({"field": "clips", "detail": f"{pairs} pairs; there may be {MAX_PAIRS}"})
    if apart := methods - _linked(clips):
        detail = f"no chain of scenes links {', '.join(sorted(apart))} with {clips[0].method}: they cannot be ranked"
        errors.append({"field": "clips", "detail": detail})
    return errors


def _linked(clips: Sequence[ClipRequest]) -> set[str]:
    """The methods that are compared with the first one, directly or by way of others."""
    linked = {clips[0].method}
    while True:
        scenes = {clip.scene for clip in clips if clip.method in linked}
        more = {clip.method for clip in clips if clip.scene in scenes}
        if more == linked:
            return linked
        linked = more


def _check_source(session: Session, clip: ClipRequest, field: str) -> None:
    """Raise 422 for a clip that is not there or that no browser plays, 409 for one that is not ready."""
    if clip.upload_id is not None:
        try:
            media_type = ready_upload(session, clip.upload_id).media_type
        except ServiceError as error:
            error.errors = [{**entry, "field": f"{field}.{entry['field']}"} for entry in error.errors]
            raise
    else:
        media_type = _artifact_type(session, clip, field)
    if media_type not in PLAYABLE:
        detail = f"{media_type} is no video that every browser plays; use mp4 or webm"
        raise invalid([{"field": field, "detail": detail}])


def _artifact_type(session: Session, clip: ClipRequest, field: str) -> str:
    job = queries.job(session, clip.job_id or "")
    if job is None or job.delete_requested_at:
        raise _unknown("job", f"there is no job {clip.job_id!r}", "list the jobs that succeeded", f"{field}.job_id")
    if job.state != states.SUCCEEDED:
        raise ServiceError(
            409,
            "not-finished",
            "The job has no finished renders",
            f"job {job.id} is {job.state}",
            "compare jobs that succeeded",
            retryable=job.state in (states.QUEUED, states.RUNNING),
            errors=[{"field": f"{field}.job_id", "detail": f"the job is {job.state}"}],
        )
    artifact = queries.artifact(session, job.id, clip.path)
    if artifact is None:
        raise invalid([{"field": f"{field}.path", "detail": f"job {job.id} has no file {clip.path!r}"}])
    return artifact.media_type


def _unknown(kind: str, detail: str, remedy: str, field: str = "") -> ServiceError:
    errors = [{"field": field or kind, "detail": "unknown"}]
    return ServiceError(422, f"{kind}-not-found", f"There is no such {kind}", detail, remedy, errors=errors)
