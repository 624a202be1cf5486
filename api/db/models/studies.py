"""User studies: clips, voters, pairs."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import Base, Owned, one_of

CHOICES = ("left", "right", "tie")


class Study(Owned, Base):
    """A blind comparison of clips; `voters` counts those who came. It takes votes until it is closed."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str]
    question: Mapped[str]
    ties: Mapped[bool]
    repeats: Mapped[int]
    pairs_per_voter: Mapped[int]
    voters: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(index=True)
    closed_at: Mapped[datetime | None]


class StudyClip(Base):
    """What a method made of a scene: an artifact of a job, or an uploaded video."""

    __tablename__ = "study_clips"
    __table_args__ = (UniqueConstraint("study_id", "scene", "method"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"))
    scene: Mapped[str]
    method: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    path: Mapped[str | None]
    upload_id: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"), index=True)


class StudyVoter(Base):
    """Somebody who votes. The id is the voter's secret; results name the number."""

    __tablename__ = "study_voters"
    __table_args__ = (UniqueConstraint("study_id", "number"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"))
    number: Mapped[int]
    created_at: Mapped[datetime]


class StudyPair(Base):
    """Two clips before one voter, who is told nothing but the id. `first_id` < `second_id`; a repeat is a row more."""

    __tablename__ = "study_pairs"
    __table_args__ = (
        CheckConstraint(one_of("choice", CHOICES), name="choice"),
        UniqueConstraint("voter_id", "number"),
        UniqueConstraint("voter_id", "first_id", "second_id", "repeated"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    voter_id: Mapped[str] = mapped_column(ForeignKey("study_voters.id"))
    number: Mapped[int]
    first_id: Mapped[str] = mapped_column(ForeignKey("study_clips.id"), index=True)
    second_id: Mapped[str] = mapped_column(ForeignKey("study_clips.id"))
    swapped: Mapped[bool]
    repeated: Mapped[bool]
    shown_at: Mapped[datetime | None]
    choice: Mapped[str | None] = mapped_column(String(20))
    voted_at: Mapped[datetime | None]
