"""The one clock of leases, pauses and deadlines: the database's, whatever the clocks of the workers say."""

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.db.models import now


def database_now(session: Session) -> datetime:
    """The present of the database server; SQLite is used by one machine only, whose clock it is."""
    if session.get_bind().dialect.name == "sqlite":
        return now()
    time: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return time.astimezone(UTC)
