"""How fast requests may come, and how many may be open: token buckets in this process, one for each tenant or address.

Several API processes each count for themselves, so that together they allow more; nothing is shared that could fail.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from api.errors import ServiceError

BURST_SECONDS = 10.0  # so much of the rate may come at once
MOST_BUCKETS = 10_000  # then those that were used longest ago are forgotten


class Buckets:
    """`per_minute` requests for each name, 0: no limit. `clock` gives seconds."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._most = max(1.0, self._rate * BURST_SECONDS)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, name: str) -> None:
        """Count one request. Raises 429, with the time of the next one that is allowed."""
        if not self._rate:
            return
        time = self._clock()
        tokens, then = self._left.pop(name, (self._most, time))
        tokens = min(self._most, tokens + (time - then) * self._rate)
        allowed = tokens >= 1
        self._left[name] = (tokens - allowed, time)
        if len(self._left) > MOST_BUCKETS:
            self._left.popitem(last=False)
        if not allowed:
            seconds = math.ceil((1 - tokens) / self._rate)
            detail = f"at most {round(self._rate * 60)} a minute are answered"
            raise _too_many("rate-limit", "Requests come too fast", detail, seconds)


class Open:
    """At most `most` requests of a name at one time, 0: no limit; streams, long polls and slow readers count."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._now: Counter[str] = Counter()

    def enter(self, name: str) -> None:
        """Take a place, to be given back by `leave`. Raises 429 if there is none. An empty name has no limit."""
        if name and self._most and self._now[name] >= self._most:
            detail = f"at most {self._most} may be open at one time"
            raise _too_many("too-many-open", "Too many requests are open", detail, 5)
        self._now[name] += 1

    def leave(self, name: str) -> None:
        self._now[name] -= 1
        if not self._now[name]:
            del self._now[name]


def _too_many(type: str, title: str, detail: str, seconds: int) -> ServiceError:
    headers = {"Retry-After": str(seconds)}
    return ServiceError(429, type, title, detail, "send them more slowly", retryable=True, headers=headers)
