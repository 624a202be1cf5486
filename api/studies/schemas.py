"""What is sent to the routes of studies, and what they return."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from api.db.models import Study
from api.schemas import Name, printable

MAX_CLIPS = 200
MAX_METHODS = 20
MAX_PAIRS = 1000
MAX_VOTERS = 1000
STUDY_LINKS = ("voters", "invitations", "votes", "results", "votes.csv", "close")
Choice = Literal["left", "right", "tie"]
Identity = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[\w-]+$")]


def _plain(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    if not text[0].isalnum():
        raise ValueError("begin with a letter or a digit")
    return text


Word = Annotated[Name, Field(min_length=1, max_length=80), AfterValidator(_plain)]


class ClipRequest(BaseModel):
    """What one method made of one scene: a video of a finished job, or one that was uploaded."""

    model_config = ConfigDict(extra="forbid")

    method: Word = Field(description="never shown to voters")
    scene: Word = Field("scene", description="clips of one scene are compared with each other")
    job_id: Identity | None = None
    path: Annotated[str, AfterValidator(printable)] = Field(
        "renders/orbit.mp4", max_length=500, description="which artifact of the job"
    )
    upload_id: Identity | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.job_id is None) == (self.upload_id is None):
            raise ValueError("give job_id or upload_id")
        return self


class StudyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[Name, Field(min_length=1)] = Field(description="shown to voters: must not say what is compared")
    question: Annotated[Name, Field(min_length=1)] = "Which of the two looks better?"
    clips: list[ClipRequest] = Field(min_length=2, max_length=MAX_CLIPS)
    ties: bool = Field(True, description="whether voters may say that there is no difference")
    pairs_per_voter: int = Field(40, ge=1, le=200, description="all pairs if there are fewer; else the least shown")
    repeats: int = Field(3, ge=0, le=20, description="pairs that a voter sees again, sides swapped, as a check")


class InvitationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(1, ge=1, le=MAX_VOTERS, description="how many people are to vote")


class VoteRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    voter: Identity
    pair: Identity
    choice: Choice


class StudyOut(BaseModel):
    """A study as voters may see it: without its methods."""

    id: str
    name: str
    question: str
    ties: bool
    state: Literal["open", "closed"]
    voters: int
    created_at: datetime
    closed_at: datetime | None
    links: dict[str, str]

    @classmethod
    def of(cls, study: Study) -> Self:
        url = f"/v1/studies/{study.id}"
        links = {"self": url, "page": f"/#/studies/{study.id}"} | {name: f"{url}/{name}" for name in STUDY_LINKS}
        own = {name: getattr(study, name) for name in cls.model_fields if hasattr(study, name)}
        return cls.model_validate({**own, "state": "closed" if study.closed_at else "open", "links": links})


class StudyPage(BaseModel):
    items: list[StudyOut]
    next_cursor: str | None


class PairOut(BaseModel):
    """Two clips, under addresses that no other pair and no other voter has."""

    id: str
    number: int
    left: str = Field(description="address of the clip on the left")
    right: str


class BallotOut(BaseModel):
    """Where a voter stands. `voter` is the voter's secret: keep it to go on later."""

    voter: str
    done: int
    total: int
    pair: PairOut | None = Field(description="what to judge next; null when all is done")


class InvitationOut(BaseModel):
    """A voter who has not come yet: `page` is for one person, whose votes count once however often it is opened."""

    voter: str
    page: str

    @classmethod
    def of(cls, study_id: str, voter: str) -> Self:
        return cls(voter=voter, page=f"/#/studies/{study_id}/voters/{voter}")


class InvitationsOut(BaseModel):
    items: list[InvitationOut]


class MethodScore(BaseModel):
    """Scores are log worths that sum to 0: P(a preferred to b) / P(b preferred to a) = exp(score a - score b)."""

    method: str
    rank: int
    score: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


class Comparison(BaseModel):
    """Two methods. `preferred`: share of votes for the first, a tie counting half; null without votes."""

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    preferred: float | None
    low: float | None
    high: float | None


class AgreementOut(BaseModel):
    same: float = Field(description="share of equal answers, over all two voters of a pair")
    u: float = Field(description="Kendall's and Babington Smith's coefficient: 1 all agree, 0 chance")
    comparisons: int


class VoterOut(BaseModel):
    voter: int
    votes: int
    repeated: int = Field(description="pairs that were answered twice")
    contradictions: int = Field(description="of these, answered the opposite way with the sides swapped")
    left: int = Field(description="votes for the clip on the left, repeats included")
    right: int
    flagged: bool


class ResultsOut(BaseModel):
    study: StudyOut
    model: Literal["davidson", "bradley-terry"]
    tie_strength: float | None
    interval: str = Field(description="how `low` and `high` (95 %) were found")
    votes: int = Field(description="votes that count: no repeats, and without flagged voters unless asked for")
    methods: list[MethodScore] = Field(description="best first")
    comparisons: list[Comparison]
    agreement: AgreementOut | None
    voters: list[VoterOut]
    notes: list[str]
