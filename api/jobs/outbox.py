"""The outbox: what waits is announced after the commit that says so, by whoever comes first."""

from sqlalchemy import delete

from api.db import queries
from api.db.models import Announcement
from api.db.session import Sessions
from api.jobs.queue import JobQueue


def deliver(sessions: Sessions, queue: JobQueue) -> int:
    """Send what was not sent yet, the oldest first; returns how many. A doubled message is harmless.

    Stops at the first one that cannot be sent: it stays, and the next caller (each worker's sweep is one) tries again.
    """
    with sessions() as session:
        waiting = queries.announcements(session)
    sent = 0
    for message in waiting:
        if not queue.announce(message.job_id):
            break
        with sessions.begin() as session:
            mine = (Announcement.job_id == message.job_id, Announcement.attempt == message.attempt)
            session.execute(delete(Announcement).where(*mine))
        sent += 1
    return sent
