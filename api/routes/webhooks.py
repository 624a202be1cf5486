"""Webhooks: the signing secret, what was sent of a job, a test, and sending again."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.db.models import Delivery, Webhook
from api.deps import CallerDep, Service, ServiceDep
from api.errors import ServiceError, not_found
from api.routes.jobs import existing
from api.webhooks import keys, outbox
from api.webhooks.schemas import DeliveryOut, SecretOut, WebhookOut

router = APIRouter(prefix="/v1", tags=["webhooks"])


@router.get("/webhooks/secret", summary="The secret that signs webhooks")
def secret(service: ServiceDep, caller: CallerDep) -> SecretOut:
    """One for all jobs that bring none of their own; receivers verify with it (Standard Webhooks)."""
    return SecretOut.model_validate(keys.of_tenant(service.sessions, caller.tenant), from_attributes=True)


@router.post("/webhooks/secret/rotate", summary="Replace the secret")
def rotate(service: ServiceDep, caller: CallerDep) -> SecretOut:
    """For a day messages carry signatures of both, so that receivers can change over."""
    return SecretOut.model_validate(keys.rotate(service.sessions, caller.tenant), from_attributes=True)


@router.get("/jobs/{job_id}/webhook", summary="The webhook of a job, with all its messages")
def read(job_id: str, service: ServiceDep) -> WebhookOut:
    """Newest first; the job itself shows the last few."""
    with service.sessions() as session:
        existing(session, job_id)
        _receiver(session, job_id)
        return WebhookOut.of(*outbox.of_jobs(session, [job_id])[job_id])


@router.post("/jobs/{job_id}/webhook/test", status_code=202, summary="Send a test message")
def test(job_id: str, service: ServiceDep) -> DeliveryOut:
    """A message of type `webhook.test`; its log says what the receiver answered."""
    with service.sessions.begin() as session:
        job = existing(session, job_id)
        webhook = _receiver(session, job_id)
        if outbox.count(session, job_id) >= outbox.MOST_DELIVERIES:
            detail = f"a job may have {outbox.MOST_DELIVERIES} messages"
            raise ServiceError(429, "too-many-messages", "Too many messages", detail, "use another job")
        webhook.gone_at = None
        message = outbox.note_test(session, job)
    return DeliveryOut.of(message)


@router.post("/jobs/{job_id}/webhook/deliveries/{delivery_id}/resend", status_code=202, summary="Send a message again")
def resend(job_id: str, delivery_id: str, service: ServiceDep) -> DeliveryOut:
    """Under the same id; a receiver that had answered 410 is tried again."""
    with service.sessions.begin() as session:
        existing(session, job_id)
        message = session.get(Delivery, delivery_id)
        if message is None or message.job_id != job_id:
            raise not_found("message", delivery_id)
        if not outbox.resend(session, delivery_id):
            detail = f"message {delivery_id} waits for its next try"
            raise ServiceError(409, "still-pending", "The message is not given up", detail, "wait", retryable=True)
    return _shown(service, delivery_id)


def _shown(service: Service, delivery_id: str) -> DeliveryOut:
    with service.sessions() as session:
        return DeliveryOut.of(session.get_one(Delivery, delivery_id))


def _receiver(session: Session, job_id: str) -> Webhook:
    webhook = session.get(Webhook, job_id)
    if webhook is None:
        raise ServiceError(404, "no-webhook", "The job has no webhook", f"job {job_id} was submitted without `webhook`")
    return webhook
