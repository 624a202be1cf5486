"""Pauses between attempts at one request."""

import random
import time


class Backoff:
    """Growing pauses, with jitter, until `patience` seconds have passed since the last success."""

    def __init__(self, patience: float, first: float = 0.2, longest: float = 8.0) -> None:
        self._patience = patience
        self._first = first
        self._longest = longest
        self.reset()

    def reset(self) -> None:
        """Something worked: begin anew with short pauses."""
        self._pause = self._first
        self._deadline = time.monotonic() + self._patience

    def wait(self, error: Exception, retry_after: str | None = None) -> None:
        """Sleep before the next attempt, at least for the server's `Retry-After`; raise `error` if out of time."""
        pause = self._pause * random.uniform(0.7, 1.3)
        if retry_after and retry_after.isdigit():
            pause = max(pause, float(retry_after))
        if time.monotonic() + pause > self._deadline:
            raise error
        time.sleep(pause)
        self._pause = min(2 * self._pause, self._longest)
