"""Webhooks as they are asked for and shown."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from api.db.models import Delivery, Webhook
from api.webhooks.signature import key

EventType = Literal["job.started", "job.succeeded", "job.failed", "job.cancelled", "job.expired"]
ENDS: tuple[EventType, ...] = ("job.succeeded", "job.failed", "job.cancelled", "job.expired")


class WebhookRequest(BaseModel):
    """Where a job's events are sent; a plain URL is the same with all else as by default."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2000, description="https; a public address; port 443 or 8443")
    events: list[EventType] = Field(list(ENDS), min_length=1, max_length=5, description="default: how the job ended")
    secret: str | None = Field(
        None, max_length=200, description="`whsec_` and base64 of 24 to 64 bytes; default: GET /v1/webhooks/secret"
    )

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: str | None) -> str | None:
        if value is not None:
            key(value)
        return value

    @field_validator("events")
    @classmethod
    def _once(cls, value: list[EventType]) -> list[EventType]:
        return sorted(set(value))


def _from_url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


WebhookField = Annotated[WebhookRequest, BeforeValidator(_from_url)]


class Try(BaseModel):
    time: datetime
    status: int | None
    error: str | None
    seconds: float


class DeliveryOut(BaseModel):
    """One message to the receiver. It is `failed` after the last try, `gone` if the receiver answered 410."""

    id: str = Field(description="the header `webhook-id`, the same in every try")
    type: str
    attempt: int
    state: Literal["pending", "delivered", "failed", "gone"]
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    log: list[Try]

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        own = {name: getattr(delivery, name) for name in cls.model_fields}
        return cls.model_validate(own | ({} if delivery.state == "pending" else {"next_try_at": None}))


class WebhookOut(BaseModel):
    """A job's receiver, and what was sent to it."""

    url: str
    events: list[str]
    gone_at: datetime | None = Field(description="when it answered 410: nothing more is sent")
    deliveries: list[DeliveryOut] = Field(description="newest first")

    @classmethod
    def of(cls, webhook: Webhook, deliveries: list[Delivery]) -> Self:
        shown = [DeliveryOut.of(delivery) for delivery in deliveries]
        return cls(url=webhook.url, events=webhook.events, gone_at=webhook.gone_at, deliveries=shown)


class SecretOut(BaseModel):
    """The secret with which a receiver verifies (Standard Webhooks)."""

    secret: str
    previous_until: datetime | None = Field(description="until then the secret before this one signs, too")
