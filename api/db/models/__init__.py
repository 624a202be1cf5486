"""The tables, a noun a file."""

from api.db.models.base import Base, UtcDateTime, now, one_of
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
from api.db.models.studies import CHOICES, Study, StudyClip, StudyPair, StudyVoter
from api.db.models.tallies import Tally
from api.db.models.uploads import UPLOAD_STATES, Upload
from api.db.models.webhooks import DELIVERY_STATES, Delivery, Webhook, WebhookSecret

__all__ = [
    "CHOICES",
    "DELIVERY_STATES",
    "JOB_STATES",
    "UPLOAD_STATES",
    "Announcement",
    "Artifact",
    "Attempt",
    "Base",
    "Delivery",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobTag",
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
