"""The signing secrets of tenants: made when first needed, readable by their tenant, replaced with an overlap."""

from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from api.db.models import Job, WebhookSecret, now
from api.db.session import Sessions
from api.webhooks.signature import new_secret

OVERLAP = timedelta(hours=24)


def of_tenant(sessions: Sessions, tenant: str) -> WebhookSecret:
    """The tenant's secret; a new one if there is none."""
    with sessions() as session:
        found = session.get(WebhookSecret, tenant)
    if found is None:
        try:
            with sessions.begin() as session:
                found = WebhookSecret(tenant=tenant, secret=new_secret(), previous=None, previous_until=None)
                session.add(found)
        except IntegrityError:  # a twin was faster
            with sessions() as session:
                found = session.get_one(WebhookSecret, tenant)
    return found


def rotate(sessions: Sessions, tenant: str) -> WebhookSecret:
    """A new secret; the one before signs too for a day."""
    before = of_tenant(sessions, tenant)
    until = now() + OVERLAP
    changed = {"secret": new_secret(), "previous": before.secret, "previous_until": until}
    with sessions.begin() as session:
        unchanged = (WebhookSecret.tenant == tenant, WebhookSecret.secret == before.secret)
        session.execute(update(WebhookSecret).where(*unchanged).values(**changed))
    with sessions() as session:
        return session.get_one(WebhookSecret, tenant)


def signing(sessions: Sessions, job_id: str, own: str | None) -> list[str]:
    """The secrets that sign a job's messages now: its own, or else its tenant's."""
    if own is not None:
        return [own]
    with sessions() as session:
        tenant = session.get_one(Job, job_id).tenant
    found = of_tenant(sessions, tenant)
    overlaps = found.previous is not None and found.previous_until is not None and found.previous_until > now()
    return [found.secret, *([found.previous] if overlaps and found.previous else [])]
