"""User studies: pairs of renders shown blind, one vote a pair and voter, scores with intervals.

Voters need no key: where keys are on, a link of their own instead, which the owner makes. All else is the owner's.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api.cursor import read_cursor, write_cursor
from api.db import queries
from api.db.models import Study, StudyClip, StudyVoter
from api.deps import CallerDep, EverybodysDep, ServiceDep
from api.errors import ServiceError, not_found
from api.jobs.files import Files, Stored
from api.routes.artifacts import SANDBOX
from api.routes.ranged import send
from api.studies import service as studies
from api.studies.results import results, votes_csv
from api.studies.schemas import (
    BallotOut,
    InvitationOut,
    InvitationRequest,
    InvitationsOut,
    PairOut,
    ResultsOut,
    StudyOut,
    StudyPage,
    StudyRequest,
    VoteRequest,
)

router = APIRouter(prefix="/v1/studies", tags=["studies"])


@router.post("", status_code=201, summary="Make a study")
def create(request: StudyRequest, response: Response, service: ServiceDep) -> StudyOut:
    """Clips of the same scene are compared in pairs. Jobs and uploads cannot be deleted while the study is open."""
    with service.sessions.begin() as session:
        study = studies.create(session, request)
    response.headers["Location"] = f"/v1/studies/{study.id}"
    return StudyOut.of(study)


@router.get("", summary="List studies, newest first")
def list_studies(
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> StudyPage:
    """Give `next_cursor` as `cursor` for the page that follows."""
    with service.sessions() as session:
        found = list(queries.studies(session, read_cursor(cursor), limit + 1))
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    items = [StudyOut.of(study) for study in page]
    return StudyPage(items=items, next_cursor=write_cursor(last.created_at, last.id) if last else None)


@router.get("/{study_id}", summary="A study, as voters may see it")
def get_study(study_id: str, service: EverybodysDep) -> StudyOut:
    """Names no method: those are in the results."""
    with service.sessions() as session:
        return StudyOut.of(_existing(session, study_id))


@router.post("/{study_id}/voters", status_code=201, summary="Join as a voter")
def join(study_id: str, service: EverybodysDep, caller: CallerDep) -> BallotOut:
    """A new voter, with a ballot in random order and with random sides; with an API key, always the same voter.

    Where keys are on, who has none needs an invitation.
    """
    with service.sessions.begin() as session:
        study = _existing(session, study_id)
        if caller.keys_needed and caller.key is None:
            raise ServiceError(
                403,
                "invitation-needed",
                "A link of your own is needed",
                "this address alone does not tell one voter from another",
                "ask who made the study for a voter's link, or sign in",
            )
        voter = studies.join(session, study, service.links.voter(study_id, caller.key) if caller.key else None)
        return _ballot(session, voter)


@router.post("/{study_id}/invitations", status_code=201, summary="Invite voters")
def invite(study_id: str, request: InvitationRequest, service: ServiceDep) -> InvitationsOut:
    """A page for each voter. Send every person another one: it votes once, without a key."""
    with service.sessions.begin() as session:
        invited = studies.invite(session, _existing(session, study_id), request.count)
        return InvitationsOut(items=[InvitationOut.of(study_id, voter.id) for voter in invited])


@router.get("/{study_id}/voters/{voter_id}", summary="Where a voter stands")
def ballot(study_id: str, voter_id: str, service: EverybodysDep) -> BallotOut:
    """The pair that the voter is to judge next."""
    with service.sessions.begin() as session:
        study = _existing(session, study_id)
        voter = studies.voter_of(session, study, voter_id)
        studies.deal(session, study, voter)
        return _ballot(session, voter)


@router.get("/{study_id}/pairs/{pair_id}/{side}", summary="A clip of a pair", response_class=Response)
@router.head("/{study_id}/pairs/{pair_id}/{side}", include_in_schema=False)
def clip(
    study_id: str, pair_id: str, side: Literal["left", "right"], request: Request, service: EverybodysDep
) -> Response:
    """The video, with `Range`. Neither address nor headers tell whose it is."""
    with service.sessions() as session:
        _existing(session, study_id)
        pair = queries.study_pair(session, study_id, pair_id)
        if pair is None:
            raise not_found("pair", pair_id)
        shown = session.get_one(StudyClip, pair.second_id if (side == "left") == pair.swapped else pair.first_id)
        stored, media_type = _clip(session, service.files, shown)
    headers = SANDBOX | {"Cache-Control": "private, max-age=3600"}
    return send(request, stored, media_type, headers, f'"{pair_id}-{side}"', side)


@router.post("/{study_id}/votes", status_code=201, summary="Vote")
def vote(study_id: str, request: VoteRequest, service: EverybodysDep) -> BallotOut:
    """One vote a pair and voter; the answer has the next pair."""
    with service.sessions.begin() as session:
        study = _existing(session, study_id)
        voter = studies.voter_of(session, study, request.voter)
        studies.vote(session, study, voter, request.pair, request.choice)
        return _ballot(session, voter)


@router.get("/{study_id}/results", summary="Scores, intervals, agreement")
def get_results(
    study_id: str,
    service: ServiceDep,
    flagged: Annotated[bool, Query(description="count voters who contradict themselves, too")] = False,
) -> ResultsOut:
    """Bradley-Terry scores with ties (Davidson, 1970), intervals by a bootstrap over voters, Kendall's agreement."""
    with service.sessions() as session:
        study = _existing(session, study_id)
        clips, votes = queries.study_clips(session, study_id), queries.votes(session, study_id)
    return results(study, clips, votes, flagged)


@router.get("/{study_id}/votes.csv", summary="Every vote, as a table", response_class=Response)
def export(study_id: str, service: ServiceDep) -> Response:
    """One line a vote, with the methods on both sides."""
    with service.sessions() as session:
        _existing(session, study_id)
        text = votes_csv(queries.study_clips(session, study_id), queries.votes(session, study_id))
    headers = {"Content-Disposition": f'attachment; filename="{study_id}.csv"', "Cache-Control": "private, no-cache"}
    return Response(text, media_type="text/csv", headers=headers)


@router.post("/{study_id}/close", summary="Take no more votes")
def close(study_id: str, service: ServiceDep) -> StudyOut:
    """Results stay; jobs and uploads may then be deleted. Repeats are harmless."""
    with service.sessions.begin() as session:
        return StudyOut.of(studies.close(session, _existing(session, study_id)))


@router.delete("/{study_id}", status_code=204, summary="Delete a study with its votes")
def delete(study_id: str, service: ServiceDep) -> None:
    """For good. The jobs that were compared stay."""
    with service.sessions.begin() as session:
        studies.delete(session, _existing(session, study_id))


def _existing(session: Session, study_id: str) -> Study:
    study = queries.study(session, study_id)
    if study is None:
        raise not_found("study", study_id)
    return study


def _ballot(session: Session, voter: StudyVoter) -> BallotOut:
    done, total, pair = studies.next_pair(session, voter)
    if pair is None:
        return BallotOut(voter=voter.id, done=done, total=total, pair=None)
    url = f"/v1/studies/{voter.study_id}/pairs/{pair.id}"
    shown = PairOut(id=pair.id, number=pair.number, left=f"{url}/left", right=f"{url}/right")
    return BallotOut(voter=voter.id, done=done, total=total, pair=shown)


def _clip(session: Session, files: Files, shown: StudyClip) -> tuple[Stored, str]:
    """Bytes and media type of a clip's video. Raises 404 if its job or upload is gone."""
    stored, media_type = None, ""
    if shown.upload_id:
        if upload := queries.upload(session, shown.upload_id):
            stored, media_type = files.stored_upload(upload), upload.media_type
    elif artifact := queries.artifact(session, shown.job_id or "", shown.path or ""):
        stored, media_type = files.artifact(artifact), artifact.media_type
    if stored is None:
        raise ServiceError(404, "not-found", "The clip is gone", "what this pair compares was deleted")
    return stored, media_type
