"""Counting in the transaction of the change itself: what is rolled back was never counted."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.db.models import Tally

ATTEMPTS = "attempts"  # by outcome
DEVICE_SECONDS = "device_seconds"  # of attempts that have ended, by device
STAGES = "stages"  # that were finished, by stage
STAGE_SECONDS = "stage_seconds"
UPLOAD_BYTES = "upload_bytes"
WEBHOOK_TRIES = "webhook_tries"  # by what came of them


def count(session: Session, amounts: Mapping[tuple[str, str], float]) -> None:
    """Add to the sums, named by name and label. Call it once in a transaction, late: it holds the rows to its end."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    ordered = sorted(amounts.items())  # the same order for all: no deadlock
    rows = [{"name": name, "label": label, "value": value} for (name, label), value in ordered]
    if rows:
        added = dialect.insert(Tally).values(rows)
        grown = {"value": Tally.value + added.excluded.value}
        session.execute(added.on_conflict_do_update(index_elements=[Tally.name, Tally.label], set_=grown))


def totals(session: Session) -> dict[str, dict[str, float]]:
    """All sums, by name and label."""
    found: dict[str, dict[str, float]] = {}
    for row in session.scalars(select(Tally).order_by(Tally.name, Tally.label)):
        found.setdefault(row.name, {})[row.label] = row.value
    return found
