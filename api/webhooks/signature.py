"""Secrets and signatures of Standard Webhooks 1.0: HMAC-SHA256 of `id.timestamp.body`, base64, behind `v1,`."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key(secret: str) -> bytes:
    """The bytes of a secret. Raises ValueError unless it is `whsec_` and 24 to 64 bytes in base64."""
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a secret is `whsec_` and base64") from error
    if not secret.startswith(PREFIX) or not 24 <= len(found) <= 64:
        raise ValueError("a secret is `whsec_` and the base64 of 24 to 64 bytes")
    return found


def sign(keys: Sequence[str], message_id: str, timestamp: int, body: str) -> str:
    """The header: one signature for each secret that is valid now."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    digests = [hmac.digest(key(secret), content, "sha256") for secret in keys]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
