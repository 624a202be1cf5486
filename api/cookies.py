"""The cookie of a browser that has shown a key once: it names the key, and ends with it.

Its value is `key id.expiry.signature`: HMAC-SHA256 with a key derived from the secret of the service. The API key
itself does not stay in the browser.
"""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256

from api.settings import Settings
from api.signing import secret_of

NAME = "dpdy_session"
PURPOSE = b"dpdy page sessions v1"


class Cookies:
    """Makes and checks values of the cookie. `clock` gives seconds since 1970."""

    def __init__(self, secret: bytes, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(secret, PURPOSE, "sha256")
        self.seconds = int(seconds)
        self._clock = clock

    def draw(self, key_id: str) -> str:
        """The value for who has shown this key."""
        named = f"{key_id}.{int(self._clock()) + self.seconds}"
        return f"{named}.{self._signature(named)}"

    def key_of(self, value: str) -> str | None:
        """The id of the key that was shown; None for what is not ours, or whose time is over."""
        named, _, signature = value.rpartition(".")
        key_id, _, expires = named.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(named).encode()):
            return None
        return key_id if int(expires) > self._clock() else None

    def _signature(self, named: str) -> str:
        return urlsafe_b64encode(hmac.digest(self._key, named.encode(), sha256)).rstrip(b"=").decode()


def make_cookies(settings: Settings) -> Cookies:
    """With the secret of the service."""
    return Cookies(secret_of(settings), settings.session_hours * 3600)
