"""The states of a job and the moves between them."""

QUEUED = "queued"
RUNNING = "running"
CANCELLING = "cancelling"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
EXPIRED = "expired"

LIVE = (RUNNING, CANCELLING)
TERMINAL = (SUCCEEDED, FAILED, CANCELLED, EXPIRED)

MOVES: dict[str, frozenset[str]] = {
    QUEUED: frozenset({RUNNING, CANCELLED, EXPIRED}),
    RUNNING: frozenset({CANCELLING, SUCCEEDED, FAILED, QUEUED}),  # back to queued: the worker yielded or was lost
    CANCELLING: frozenset({CANCELLED, SUCCEEDED}),  # succeeded: it was done before the stop reached it
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED}),  # retry
    CANCELLED: frozenset({QUEUED}),
    EXPIRED: frozenset({QUEUED}),
}


def sources(target: str) -> tuple[str, ...]:
    """The states from which a job may move to `target`."""
    return tuple(state for state, targets in MOVES.items() if target in targets)
