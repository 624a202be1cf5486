"""The end of an attempt, and what is counted of it, in the transaction that ends it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from api.db import tallies
from api.db.clock import database_now
from api.db.models import Attempt


def end_attempt(session: Session, job_id: str, number: int, outcome: str, detail: str | None) -> None:
    """Write how it ended."""
    mine = (Attempt.job_id == job_id, Attempt.number == number)
    time = database_now(session)
    ended = update(Attempt).where(*mine).values(ended_at=time, outcome=outcome, detail=detail)
    statement = ended.returning(Attempt.started_at, Attempt.device).execution_options(synchronize_session=False)
    for row in session.execute(statement):
        seconds = (time - row.started_at).total_seconds()
        device = row.device or "cpu"
        tallies.count(session, {(tallies.ATTEMPTS, outcome): 1.0, (tallies.DEVICE_SECONDS, device): seconds})


def count_stages(session: Session, events: Iterable[Mapping[str, Any]]) -> None:
    """Count the stages that these events finished, with their time."""
    amounts: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.get("seconds") is not None:
            amounts[tallies.STAGES, event["stage"]] += 1
            amounts[tallies.STAGE_SECONDS, event["stage"]] += event["seconds"]
    tallies.count(session, amounts)
