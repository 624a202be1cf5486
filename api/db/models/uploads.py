"""What users uploaded."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import Base, Owned, one_of

UPLOAD_STATES = ("receiving", "checking", "ready", "rejected")

KEPT = text("deleted_at IS NULL")


class Upload(Owned, Base):
    """A file that a user sent; its bytes lie in the storage under its id."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint(one_of("state", UPLOAD_STATES), name="state"),
        Index("ix_uploads_kept", "state", "size", postgresql_where=KEPT, sqlite_where=KEPT),  # counting by state
        Index("ix_uploads_tenant_deleted_at", "tenant", "deleted_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    filename: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    report: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
