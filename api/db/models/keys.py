"""API keys: who may call, as whom, and for what."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import Base

SCOPES = ("read", "write", "admin")  # each includes those before it


class ApiKey(Base):
    """One key. The key itself is shown once and not kept: `prefix` finds its row, `digest` (SHA-256) proves it."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str]
    scopes: Mapped[list[Any]]
    prefix: Mapped[str] = mapped_column(String(20), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
