"""Sums that only grow, kept beside what they count: reading them costs the same however many jobs there were."""

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import Base


class Tally(Base):
    """One sum, such as of `attempts` with label `succeeded`."""

    __tablename__ = "tallies"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    label: Mapped[str] = mapped_column(String(80), primary_key=True)
    value: Mapped[float] = mapped_column(Double)
