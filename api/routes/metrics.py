"""The numbers for Prometheus, read from the database: every process tells the same, none is lost."""

import shutil
from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from api.db import census, tallies
from api.db.census import Census
from api.db.models import JOB_STATES, UPLOAD_STATES
from api.deps import EverybodysDep
from dpdy_core import __version__

router = APIRouter(tags=["service"])


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(service: EverybodysDep) -> Response:
    """Queue, leases, attempts, stages, devices, uploads, webhooks, workers and disk; see docs/deployment.md."""
    with service.sessions() as session:
        found = census.take(session, service.settings.lease_seconds)
    service.files.root.mkdir(parents=True, exist_ok=True)
    registry = CollectorRegistry()
    registry.register(_Exposition(found, shutil.disk_usage(service.files.root).free))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Exposition(Collector):
    def __init__(self, found: Census, free_bytes: int) -> None:
        self._found = found
        self._free_bytes = free_bytes

    def collect(self) -> Iterator[Metric]:
        found, sums = self._found, self._found.tallies
        uploads = {state: found.uploads.get(state, (0, 0)) for state in UPLOAD_STATES}
        version = GaugeMetricFamily("dpdy_info", "Always 1; the version is its label", labels=["version"])
        version.add_metric([__version__], 1)
        yield version
        yield _gauges("dpdy_jobs", "Jobs", "state", {state: found.jobs.get(state, 0) for state in JOB_STATES})
        yield _gauge("dpdy_queue_oldest_seconds", "How long the oldest waiting job has waited", found.queue_oldest)
        yield _gauge(
            "dpdy_heartbeat_oldest_seconds", "Since the oldest sign of life of a running job", found.heartbeat_oldest
        )
        yield _gauge(
            "dpdy_lease_overdue_seconds", "Since the first lease expired that nobody took up", found.lease_overdue
        )
        yield _counters("dpdy_attempts", "Attempts that have ended", "outcome", sums.get(tallies.ATTEMPTS, {}))
        yield _counters(
            "dpdy_device_seconds", "Time of attempts that have ended", "device", sums.get(tallies.DEVICE_SECONDS, {})
        )
        stages = SummaryMetricFamily("dpdy_stage_seconds", "Time of stages that were finished", labels=["stage"])
        for stage, number in sums.get(tallies.STAGES, {}).items():
            stages.add_metric([stage], int(number), sums.get(tallies.STAGE_SECONDS, {}).get(stage, 0.0))
        yield stages
        yield _gauges("dpdy_uploads", "Uploads that are kept", "state", {s: n for s, (n, _) in uploads.items()})
        yield _gauges("dpdy_upload_bytes", "Bytes of these uploads", "state", {s: b for s, (_, b) in uploads.items()})
        received = sums.get(tallies.UPLOAD_BYTES, {}).get("", 0.0)
        yield CounterMetricFamily("dpdy_received_bytes", "Bytes of all uploads ever", value=received)
        yield _gauge("dpdy_webhook_pending", "Webhook messages that are not delivered yet", found.messages)
        yield _gauge("dpdy_webhook_oldest_seconds", "How long the oldest of them has waited", found.message_oldest)
        yield _counters("dpdy_webhook_tries", "Tries to deliver", "result", sums.get(tallies.WEBHOOK_TRIES, {}))
        yield _gauges("dpdy_workers", "Workers seen lately", "device", {"cpu": 0, "cuda": 0, **found.workers})
        yield _gauge("dpdy_disk_free_bytes", "Free space where this process keeps files", self._free_bytes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
