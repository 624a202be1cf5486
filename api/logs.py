"""Log lines of API and workers, and of their children as the worker hears them: text, or one JSON object a line.

Each says whom it is about (request, job, attempt, tenant). The standard library does it: uvicorn, Celery and SQLAlchemy
log through it anyway, and what is missing is one formatter.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

_about: ContextVar[dict[str, Any]] = ContextVar("about", default={})  # noqa: B039  # replaced, never changed
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "kombu")


def remember(**who: Any) -> None:
    """Name these in the later lines of this task or thread."""
    _about.set({**_about.get(), **{key: value for key, value in who.items() if value is not None}})


@contextmanager
def about(**who: Any) -> Iterator[None]:
    """Name these in the lines of the block."""
    before = _about.set(_about.get())
    remember(**who)
    try:
        yield
    finally:
        _about.reset(before)


def named(key: str) -> Any:
    """What lines of now say of `key`; None if nothing."""
    return _about.get().get(key)


def carrying(target: Callable[..., None]) -> Callable[..., None]:
    """`target` for a new thread, whose lines then name what those of this one do."""
    return partial(copy_context().run, target)


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, whom it is about, `extra={"fields": ...}`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """For people. Nobody can forge a line: what a user wrote has no line breaks or terminal codes here."""

    def format(self, record: logging.LogRecord) -> str:
        who = "".join(f" {key}={value}" for key, value in _about.get().items())
        text = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{who}"
        line = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(format: Literal["text", "json"], level: str) -> None:
    """Send all lines of this process to stderr in this form, whoever had set up something else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # `api.access_log` writes these
