"""What Prometheus and the load balancer are told, against the rows themselves."""

import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url, select, text
from sqlalchemy.dialects import postgresql

from api.db import census, tallies
from api.db.models import Attempt, Worker, now
from api.db.session import make_engine, make_sessions
from migrations import upgrade
from tests.harness import Harness, steer


def scrape(service: Harness) -> dict[tuple[str, ...], float]:
    """Every sample by name and label values."""
    answer = service.http.get("/metrics")
    assert answer.status_code == 200
    samples = (sample for family in text_string_to_metric_families(answer.text) for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_the_numbers_are_those_of_the_rows(service: Harness) -> None:
    assert scrape(service)["dpdy_received_bytes_total",] == 0
    service.finished(steps=2)
    service.finished(fail=3)
    crashing = service.submit(steer(crash=1, steps=2))
    assert service.runner.run(crashing["id"])
    uploads = [service.upload() for _ in range(3)]
    service.http.delete(f"/v1/uploads/{uploads[0]}")
    told = scrape(service)
    with service.sessions() as session:
        attempts = session.scalars(select(Attempt)).all()
    outcomes = Counter(attempt.outcome for attempt in attempts)
    assert {key[1]: value for key, value in told.items() if key[0] == "dpdy_attempts_total"} == dict(outcomes)
    seconds = sum((attempt.ended_at - attempt.started_at).total_seconds() for attempt in attempts if attempt.ended_at)
    assert told["dpdy_device_seconds_total", "cpu"] == pytest.approx(seconds)
    assert told["dpdy_stage_seconds_count", "ingest"] == 3
    assert told["dpdy_stage_seconds_count", "scene"] == 1
    assert [told["dpdy_jobs", state] for state in ("queued", "succeeded", "failed")] == [1, 1, 1]
    assert told["dpdy_queue_oldest_seconds",] > 0
    assert (told["dpdy_uploads", "ready"], told["dpdy_upload_bytes", "ready"]) == (3, 15)
    assert told["dpdy_received_bytes_total",] == 20  # the deleted one was received, too
    assert told["dpdy_disk_free_bytes",] > 0
    assert (told["dpdy_workers", "cpu"], told["dpdy_webhook_pending",]) == (0, 0)


def test_what_is_rolled_back_is_not_counted(service: Harness) -> None:
    for keep in (True, False, True):
        with service.sessions() as session:
            tallies.count(session, {(tallies.ATTEMPTS, "succeeded"): 1.0, (tallies.ATTEMPTS, "failed"): 2.5})
            session.commit() if keep else session.rollback()
    with service.sessions() as session:
        assert tallies.totals(session) == {tallies.ATTEMPTS: {"succeeded": 2.0, "failed": 5.0}}


def test_ready_when_migrated_and_a_worker_is_there(service: Harness) -> None:
    with service.sessions.begin() as session:
        devices = [{"type": "cuda", "name": "A", "memory_mib": 1}]
        session.add(Worker(id="w", version="1", devices=devices, started_at=now(), seen_at=now()))
    assert service.http.get("/readyz").status_code == 200
    assert scrape(service)["dpdy_workers", "cuda"] == 1
    for revision, expected in (
        ("842f6fc33004", "the database is older than this program (`python -m migrations`)"),
        ("of-a-newer-release", "ok"),  # a rolling upgrade migrates first
    ):
        with service.sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        assert service.http.get("/readyz").json()["checks"]["database"] == expected
    with service.sessions.begin() as session:
        session.execute(text("DROP TABLE alembic_version"))
    assert service.http.get("/readyz").status_code == 503


def test_counting_a_hundred_thousand_jobs_reads_indexes_only(postgres_url: str) -> None:
    upgrade(make_url(postgres_url))
    engine = make_engine(make_url(postgres_url))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, kind, preset, settings, config, camera_paths, state, version, attempt,"
                " first_attempt, stages, progress, warnings, created_at, queued_at, finished_at)"
                " SELECT 'job-' || n, 'train', 'fast', '{}', '{}', '[]',"
                " (ARRAY['succeeded','failed','cancelled'])[1 + n % 3], 9, 1, 1, '[]', 1, '[]', now(), now(), now()"
                " FROM generate_series(1, 100000) AS n"
            )
        )
        connection.execute(text("UPDATE jobs SET state = 'queued' WHERE id = 'job-5'"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        for statement in census.STATEMENTS:
            sql = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[0] for row in connection.execute(text(f"EXPLAIN {sql}")))
            assert "Seq Scan on jobs" not in plan, plan
    with make_sessions(engine)() as session:
        started = time.monotonic()
        found = census.take(session, 60)
        print(f"census of 100 thousand jobs: {1000 * (time.monotonic() - started):.1f} ms")  # noqa: T201
    assert (sum(found.jobs.values()), found.jobs["queued"]) == (100_000, 1)
    engine.dispose()
