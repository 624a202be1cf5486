"""The tables, a noun a file."""

from api.db.models.base import DEFAULT_TENANT, DRILL, Base, Owned, UtcDateTime, now, one_of
from api.db.models.jobs import (
    JOB_STATES,
    Announcement,
    Artifact,
    Attempt,
    IdempotencyKey,
    Job,
    JobEvent,
    JobTag,
    Worker,
)
from api.db.models.keys import SCOPES, ApiKey
from api.db.models.studies import CHOICES, Study, StudyClip, StudyPair, StudyVoter
from api.db.models.tallies import Tally
from api.db.models.uploads import UPLOAD_STATES, Upload
from api.db.models.webhooks import DELIVERY_STATES, Delivery, Webhook, WebhookSecret

__all__ = [
    "CHOICES",
    "DEFAULT_TENANT",
    "DELIVERY_STATES",
    "DRILL",
    "JOB_STATES",
    "SCOPES",
    "UPLOAD_STATES",
    "Announcement",
    "ApiKey",
    "Artifact",
    "Attempt",
    "Base",
    "Delivery",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobTag",
    "Owned",
    "Study",
    "StudyClip",
    "StudyPair",
    "StudyVoter",
    "Tally",
    "Upload",
    "UtcDateTime",
    "Webhook",
    "WebhookSecret",
    "Worker",
    "now",
    "one_of",
]
