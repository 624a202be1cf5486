"""Sends what is due: receivers side by side, the messages of one in a row, so that a slow one delays only itself."""

import logging
import ssl
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from api.db.models import Delivery, Webhook
from api.db.session import Sessions
from api.logs import about
from api.settings import Settings
from api.webhooks import keys, outbox, target
from api.webhooks.post import Unreachable, post
from api.webhooks.signature import sign
from dpdy_core import __version__

RECEIVERS_AT_ONCE = 8
TURN_SECONDS = 10.0  # after which a receiver's other messages wait for its next turn

log = logging.getLogger(__name__)


class Sender:
    """Any number of senders may work on one database: each message is claimed for each try."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        resolver: target.Resolver = target.resolve,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._resolver = resolver
        self._context = context or ssl.create_default_context()
        self._pool = ThreadPoolExecutor(RECEIVERS_AT_ONCE, "webhook")
        self._busy: dict[str, Future[int]] = {}  # by receiver

    def start_due(self) -> None:
        """Begin to send what is due to receivers that are not being sent to now. Raises SQLAlchemyError."""
        self._busy = {name: sending for name, sending in self._busy.items() if not sending.done()}
        with self._sessions() as session:
            waiting = outbox.due(session)
        receivers: dict[str, list[tuple[Delivery, Webhook]]] = defaultdict(list)
        for message, webhook in waiting:
            receivers[_receiver(webhook.url)].append((message, webhook))
        for name, messages in receivers.items():
            if name not in self._busy and len(self._busy) < RECEIVERS_AT_ONCE:
                self._busy[name] = self._pool.submit(self._send_all, messages)

    def round(self) -> int:
        """Try everything that is due once, and wait for it; returns how many tries there were."""
        self.start_due()
        return sum(sending.result() for sending in self._busy.values())

    def close(self) -> None:
        """Start nothing more. What is being sent ends by itself, or else is another sender's."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send_all(self, messages: Sequence[tuple[Delivery, Webhook]]) -> int:
        started, tries = time.monotonic(), 0
        for message, webhook in messages:
            if time.monotonic() - started >= TURN_SECONDS:
                break
            try:
                with self._sessions.begin() as session:
                    mine = outbox.claim(session, message)
                if mine:
                    with about(job=message.job_id, attempt=message.attempt):
                        self._try(message, webhook)
                    tries += 1
            except Exception:  # the claim runs out, and the message is tried again
                log.exception("webhook %s: trying again later", message.id)
        return tries

    def _try(self, message: Delivery, webhook: Webhook) -> None:
        started = time.monotonic()
        status, error = None, None
        try:
            status = self._post(message, webhook)
        except target.Refused as refused:
            error = f"refused: {refused}"
        except Unreachable as fault:
            error = str(fault)
        with self._sessions.begin() as session:
            seconds = time.monotonic() - started
            state = outbox.conclude(session, message, status, error, seconds, self._settings)
        told = log.info if state == "delivered" else log.warning
        told("webhook %s, try %s: %s, %s", message.id, message.tries + 1, status or error, state or "taken over")

    def _post(self, message: Delivery, webhook: Webhook) -> int:
        loopback = self._settings.webhook_loopback
        receiver = target.parse(webhook.url, loopback)
        found = target.addresses(receiver, loopback, self._resolver)
        timestamp = int(time.time())
        signing = keys.signing(self._sessions, message.job_id, webhook.secret)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"DpDy/{__version__}",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(signing, message.id, timestamp, message.body),
        }
        return post(receiver, found, headers, message.body, self._context)


def _receiver(url: str) -> str:
    """What tells receivers apart: host and port. A URL that is not allowed any more is one of its own."""
    try:
        found = target.parse(url, loopback=True)
    except target.Refused:
        return url
    return f"{found.host}:{found.port}"
