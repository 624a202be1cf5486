"""The messages to a job's receiver: written in the commit of the change, claimed for one try, and its end written.

No function commits. Times are the database's.
"""

import json
import random
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, defer

from api.db import tallies
from api.db.clock import database_now
from api.db.models import Delivery, Job, Webhook, now
from api.settings import Settings

HOLD_SECONDS = 60.0  # for one try: longer than a slow name server and a slow receiver take together
LONGEST_PAUSE = 4 * 3600.0
MOST_DELIVERIES = 200  # of one job; then tests are refused
LONGEST_TEXT = 600
EVENTS = {"running": "job.started"} | {s: f"job.{s}" for s in ("succeeded", "failed", "cancelled", "expired")}
TEST = "webhook.test"


def note(session: Session, job: Job, number: int) -> None:
    """Write the message of a job's state event if somebody wants it. Its id is the event's: it cannot be doubled."""
    kind = EVENTS.get(job.state)
    webhook = session.get(Webhook, job.id) if kind else None
    if kind and webhook and kind in webhook.events:
        message = _message(session, job, f"{job.id}-{number}", kind, number)
        message.state = "gone" if webhook.gone_at else "pending"
        session.add(message)


def note_test(session: Session, job: Job) -> Delivery:
    """A message that only says that the receiver can be reached."""
    message = _message(session, job, f"{job.id}-test-{secrets.token_hex(4)}", TEST, None)
    session.add(message)
    return message


def _message(session: Session, job: Job, identity: str, kind: str, number: int | None) -> Delivery:
    time = database_now(session)
    body = json.dumps({"type": kind, "timestamp": _text(now()), "data": _summary(job)}, ensure_ascii=False)
    return Delivery(
        id=identity,
        job_id=job.id,
        type=kind,
        attempt=job.attempt,
        number=number,
        body=body,
        state="pending",
        tries=0,
        tries_before=0,
        log=[],
        created_at=time,
        next_try_at=time,
    )


def _summary(job: Job) -> dict[str, Any]:
    """Thin: what a receiver needs to decide whether to ask for more."""
    problem = job.problem and {
        key: value[:LONGEST_TEXT] if isinstance(value, str) else value
        for key, value in job.problem.items()
        if key in ("type", "title", "detail", "remedy", "retryable")
    }
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "attempt": job.attempt,
        "problem": problem,
        "created_at": _text(job.created_at),
        "started_at": _text(job.started_at),
        "finished_at": _text(job.finished_at),
        "links": {"self": f"/v1/jobs/{job.id}", "artifacts": f"/v1/jobs/{job.id}/artifacts"},
    }


def _text(time: datetime | None) -> str | None:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None


def due(session: Session, limit: int = 200) -> Sequence[tuple[Delivery, Webhook]]:
    """Messages whose next try is due, the oldest first."""
    waiting = select(Delivery, Webhook).join(Webhook, Webhook.job_id == Delivery.job_id)
    waiting = waiting.where(Delivery.state == "pending", Delivery.next_try_at <= database_now(session))
    return [(row[0], row[1]) for row in session.execute(waiting.order_by(Delivery.next_try_at).limit(limit))]


def claim(session: Session, message: Delivery) -> bool:
    """Take a message, as it was read, for its next try. False if another sender has it, or it is over."""
    hold = {"tries": message.tries + 1, "next_try_at": database_now(session) + timedelta(seconds=HOLD_SECONDS)}
    return _update(session, message, message.tries, hold)


def conclude(
    session: Session, message: Delivery, status: int | None, error: str | None, seconds: float, settings: Settings
) -> str | None:
    """Write how the claimed try ended; the message's state, None if the try took so long that it is another's."""
    number, since = message.tries + 1, message.tries + 1 - message.tries_before
    entry = {"time": _text(now()), "status": status, "error": error, "seconds": round(seconds, 3)}
    state = "pending"
    if status is not None and 200 <= status < 300:
        state = "delivered"
    elif status == 410:
        state = "gone"
    elif since >= settings.webhook_tries:
        state = "failed"
    pause = min(settings.webhook_retry_seconds * 4 ** (since - 1), LONGEST_PAUSE) * random.uniform(0.8, 1.2)
    next_try = database_now(session) + timedelta(seconds=pause)
    if not _update(session, message, number, {"state": state, "log": [*message.log, entry], "next_try_at": next_try}):
        return None
    result = "retried" if state == "pending" else state
    tallies.count(session, {(tallies.WEBHOOK_TRIES, result): 1.0})
    if state == "gone":
        session.execute(update(Webhook).where(Webhook.job_id == message.job_id).values(gone_at=now()))
        rest = (Delivery.job_id == message.job_id, Delivery.state == "pending")
        session.execute(update(Delivery).where(*rest).values(state="gone"))
    return state


def _update(session: Session, message: Delivery, tries: int, values: dict[str, Any]) -> bool:
    mine = (Delivery.id == message.id, Delivery.state == "pending", Delivery.tries == tries)
    statement = update(Delivery).where(*mine).values(**values).returning(Delivery.id)
    return session.scalar(statement.execution_options(synchronize_session=False)) is not None


def resend(session: Session, delivery_id: str) -> bool:
    """Send a message anew, under its old id. False if it still waits for a try."""
    ended = (Delivery.id == delivery_id, Delivery.state != "pending")
    anew = {"state": "pending", "tries_before": Delivery.tries, "next_try_at": database_now(session)}
    statement = update(Delivery).where(*ended).values(**anew).returning(Delivery.job_id)
    job_id = session.scalar(statement.execution_options(synchronize_session=False))
    if job_id is None:
        return False
    session.execute(update(Webhook).where(Webhook.job_id == job_id).values(gone_at=None))
    return True


def of_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, tuple[Webhook, list[Delivery]]]:
    """The receivers of jobs that have one, and their messages, newest first."""
    found: dict[str, tuple[Webhook, list[Delivery]]] = {
        webhook.job_id: (webhook, []) for webhook in session.scalars(select(Webhook).where(Webhook.job_id.in_(job_ids)))
    }
    wanted = select(Delivery).where(Delivery.job_id.in_(found)).options(defer(Delivery.body))
    newest = wanted.order_by(Delivery.created_at.desc(), Delivery.id.desc())
    for message in session.scalars(newest) if found else ():
        found[message.job_id][1].append(message)
    return found


def count(session: Session, job_id: str) -> int:
    return session.scalar(select(func.count()).where(Delivery.job_id == job_id)) or 0


def forget(session: Session, job_id: str) -> None:
    """Of a deleted job nothing is sent any more, and its receiver and secret go too."""
    session.execute(delete(Delivery).where(Delivery.job_id == job_id))
    session.execute(delete(Webhook).where(Webhook.job_id == job_id))
