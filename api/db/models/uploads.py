"""What users uploaded."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import Base, Owned, one_of

UPLOAD_STATES = ("receiving", "checking", "ready", "rejected")

KEPT = text("deleted_at IS NULL")


class Upload(Owned, Base):
    """A file that a user sends or sent; its bytes lie in the storage under its id."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint(one_of("state", UPLOAD_STATES), name="state"),
        Index("ix_uploads_kept", "state", "size", postgresql_where=KEPT, sqlite_where=KEPT),  # counting by state
        Index("ix_uploads_tenant_deleted_at", "tenant", "deleted_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    filename: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    """While it is received: what was announced."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Empty until all bytes are there and were read once more."""
    expected_sha256: Mapped[str | None] = mapped_column(String(64))
    """What a resumable upload announced."""
    tus_metadata: Mapped[str | None]
    """`Upload-Metadata` of a resumable upload, as it came."""
    unverified_from: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes from here on belong to a chunk whose checksum was not compared yet."""
    media_type: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    report: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
