"""API keys: `dpdy_` + 8 characters that name the key + 32 that prove it (190 bits) + a checksum of 6.

The checksum (CRC-32, as in GitHub's tokens) tells a mistyped or cut key from a wrong one without asking the database,
and lets scanners of leaked secrets be sure. Only the SHA-256 of the whole key is stored: enough, as keys are random.
"""

import hmac
import re
import secrets
import string
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.db.models import SCOPES, ApiKey, now

_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NAME, _SECRET, _CHECK = 8, 32, 6
_PREFIX = len("dpdy_") + _NAME
KEY = re.compile(rf"dpdy_[0-9A-Za-z]{{{_NAME + _SECRET + _CHECK}}}")
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
USED_EVERY = timedelta(minutes=1)  # so seldom is `last_used_at` written


def draw_key() -> str:
    """A new key, from the system's randomness."""
    body = "dpdy_" + "".join(secrets.choice(_LETTERS) for _ in range(_NAME + _SECRET))
    return body + checksum(body)


def checksum(body: str) -> str:
    """CRC-32 of the key before it, in base 62."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_LETTERS))
        digits = _LETTERS[digit] + digits
    return digits


def well_formed(key: str) -> bool:
    """Whether a text can be a key at all."""
    return KEY.fullmatch(key) is not None and hmac.compare_digest(checksum(key[:-_CHECK]), key[-_CHECK:])


def create(
    session: Session, tenant: str, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its row. Nobody can read the key again later."""
    key = draw_key()
    row = ApiKey(
        id=f"key-{secrets.token_hex(10)}",
        tenant=tenant,
        name=name,
        scopes=[scope for scope in SCOPES if scope in scopes],
        prefix=key[:_PREFIX],
        digest=_digest(key),
        created_at=now(),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return row, key


def find(session: Session, key: str) -> ApiKey | None:
    """The row of a key that is valid now. What differs is compared in constant time."""
    if not well_formed(key):
        return None
    row = session.scalar(select(ApiKey).where(ApiKey.prefix == key[:_PREFIX]))
    if row is None or not hmac.compare_digest(row.digest, _digest(key)):
        return None
    return _valid(row)


def get(session: Session, key_id: str) -> ApiKey | None:
    """The row of a key by its id, if the key is valid now."""
    row = session.get(ApiKey, key_id)
    return _valid(row) if row else None


def _valid(row: ApiKey) -> ApiKey | None:
    ended = row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now())
    return None if ended else row


def note_use(session: Session, row: ApiKey) -> None:
    """Remember that a key was used; at most once a minute."""
    time = now()
    if row.last_used_at is None or row.last_used_at < time - USED_EVERY:
        session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=time))


def listing(session: Session, tenant: str | None = None) -> Sequence[ApiKey]:
    """All keys, or those of a tenant, the oldest first."""
    statement = select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)
    return session.scalars(statement.where(ApiKey.tenant == tenant) if tenant else statement).all()


def revoke(session: Session, name: str) -> ApiKey | None:
    """End a key, by its id or prefix, from the next request on. Its row stays. Repeats are harmless."""
    row = session.scalar(select(ApiKey).where((ApiKey.id == name) | (ApiKey.prefix == name)))
    if row is not None:
        row.revoked_at = row.revoked_at or now()
    return row


def allows(scopes: Sequence[str], scope: str) -> bool:
    """Whether one of the scopes is, or includes, `scope`."""
    return any(SCOPES.index(held) >= SCOPES.index(scope) for held in scopes)


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()
