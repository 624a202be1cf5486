"""Signed links: a path that its holder may read for a while without an API key.

The signature is HMAC-SHA256 over method, path, tenant and expiry. Its key is derived from the secret of the service, so
that a new secret revokes every link at once.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode

from api.settings import Settings

SHARED = "/v1/shared"
PURPOSE = b"dpdy signed links v1"  # the same secret makes other keys for other purposes
_FIELDS = ("expires", "tenant", "signature")


class Links:
    """Makes and checks signed links. `clock` gives seconds since 1970."""

    def __init__(self, secret: bytes, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(secret, PURPOSE, "sha256")
        self._seconds = seconds
        self._clock = clock

    def sign(self, path: str, tenant: str) -> str:
        """A link to `path` (not yet percent-encoded) for reading as `tenant`, with GET or HEAD."""
        expires = int(self._clock() + self._seconds)
        query = {"expires": expires, "tenant": tenant, "signature": self._signature("GET", path, tenant, expires)}
        return f"{quote(path)}?{urlencode(query)}"

    def tenant_of(self, method: str, path: str, query: str) -> str | None:
        """Whose link it is, None if it is none of ours for this method and path, or its time is over.

        `path` is decoded, `query` is not. Other parameters in it (`download`) do not matter.
        """
        try:
            given = parse_qs(query, keep_blank_values=True, max_num_fields=20)
        except ValueError:
            return None
        if any(len(given.get(field, ())) != 1 for field in _FIELDS):
            return None
        expires, tenant, signature = (given[field][0] for field in _FIELDS)
        if not (expires.isascii() and expires.isdecimal() and len(expires) <= 12):
            return None
        wanted = self._signature("GET" if method == "HEAD" else method, path, tenant, int(expires))
        genuine = hmac.compare_digest(signature.encode(), wanted.encode())
        return tenant if genuine and int(expires) > self._clock() else None

    def share(self, job_id: str, tenant: str, file: str) -> str:
        """A link to a file of a job beside which the job's other files can be read: those that a report shows."""
        expires = int(self._clock() + self._seconds)
        signature = self._signature("SHARE", job_id, tenant, expires)
        return f"{SHARED}/{job_id}/{expires}.{tenant}.{signature}/{quote(file)}"

    def sharer(self, method: str, path: str) -> str | None:
        """Whose job the link `path`, decoded, opens; None if it is not ours, or its time is over."""
        found = re.fullmatch(rf"{SHARED}/([^/]+)/(\d{{1,12}})\.([^./]+)\.([^./]+)/.*", path, re.ASCII | re.DOTALL)
        if found is None or method not in ("GET", "HEAD"):
            return None
        job_id, expires, tenant, signature = found.groups()
        wanted = self._signature("SHARE", job_id, tenant, int(expires))
        genuine = hmac.compare_digest(signature.encode(), wanted.encode())
        return tenant if genuine and int(expires) > self._clock() else None

    def voter(self, study_id: str, key_id: str) -> str:
        """Who votes in a study with an API key: always the same, and nobody else can tell."""
        message = json.dumps(["VOTER", study_id, key_id]).encode()
        return f"voter-{hmac.digest(self._key, message, hashlib.sha256).hex()[:32]}"

    def _signature(self, method: str, path: str, tenant: str, expires: int) -> str:
        message = json.dumps([method, path, tenant, expires]).encode()  # a list: no field can reach into the next
        return urlsafe_b64encode(hmac.digest(self._key, message, hashlib.sha256)).rstrip(b"=").decode()


def is_signed(query: str) -> bool:
    """Whether a query claims to be a link's."""
    return "signature=" in query


def make_links(settings: Settings) -> Links:
    """With `DPDY_SECRET`, or else a secret that is made once and kept in the data folder."""
    return Links(secret_of(settings), settings.link_seconds)


def secret_of(settings: Settings) -> bytes:
    """The secret of the service, from which the keys of all purposes are derived."""
    return settings.secret.get_secret_value().encode() if settings.secret else _kept_secret(settings.data / "secret")


def _kept_secret(file: Path) -> bytes:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_urlsafe(32))
                out.flush()
                os.fsync(out.fileno())
            with suppress(FileExistsError):  # of two processes that start at once, one makes it
                os.link(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    return file.read_bytes()
