"""Cursors of lists, newest first: where the page before ended."""

import base64
import binascii
import json
from datetime import datetime

from api.errors import invalid


def write_cursor(created_at: datetime, identity: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), identity]).encode()).decode()


def read_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Raises 422 for what is no cursor."""
    if cursor is None:
        return None
    try:
        time, identity = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        read = datetime.fromisoformat(time)
        if read.tzinfo is None or not isinstance(identity, str):
            raise ValueError
    except (ValueError, TypeError, binascii.Error) as error:
        raise invalid([{"field": "cursor", "detail": "not a cursor of this list"}]) from error
    return read, identity
