"""The whole OpenAPI under Schemathesis: whatever is sent, no answer is a 5xx, and every refusal is a problem."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy, booleans
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.transport.serialization import serialize_binary

from api.settings import Settings
from tests.harness import Document, Harness, bearer, harness, make_key

QUIET: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@schemathesis.serializer("application/offset+octet-stream")
def _chunk_of_tus(_context: object, value: Any) -> dict[str, Any]:
    return {"data": serialize_binary(value)}


@pytest.fixture
def guarded(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    limits = dict.fromkeys(("tenant_requests_per_minute", "stranger_requests_per_minute", "tenant_queued_jobs"), 0)
    with harness(make_settings(auth="on", webhook_loopback=True, max_wait_seconds=0.01, **limits)) as service:
        service.http.headers.update(bearer(make_key(service.sessions, "ours", "admin")))
        yield service


def real(service: Harness) -> Document:
    """Things that are there, so that requests come further than `404`. Only reads get them: the rest would end them."""
    job = service.finished()["id"]
    clips = [{"method": name, "job_id": job, "path": "renders/orbit.mp4"} for name in ("a", "b")]
    study = service.http.post("/v1/studies", json={"name": "s", "clips": clips}).json()["id"]
    ballot = service.http.post(f"/v1/studies/{study}/voters").json()
    ids = {"job_id": job, "upload_id": service.upload(), "study_id": study, "voter_id": ballot["voter"]}
    return ids | {"pair_id": ballot["pair"]["id"], "path": "renders/orbit.mp4"}


def hammer(service: Harness, examples: int) -> dict[str, set[int]]:
    """The statuses that each operation answered to `examples` valid and as many invalid requests."""
    schema = schemathesis.openapi.from_dict(service.http.get("/openapi.json").json())
    ids, answered = real(service), {}
    for result in schema.get_all_operations():
        operation = result.ok()
        answered[f"{operation.method.upper()} {operation.path}"] = {
            status
            for mode in modes(operation)
            for status in examine(service, operation.as_strategy(generation_mode=mode), examples, ids)
        }
    return answered


def modes(operation: APIOperation) -> list[GenerationMode]:
    """Every text is a valid id: where nothing else is asked for, no request is invalid."""
    more = operation.query or operation.headers or operation.body
    return [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if more else [])]


def examine(service: Harness, cases: SearchStrategy[Case], examples: int, ids: Document) -> set[int]:
    """The statuses of one operation."""
    seen: set[int] = set()

    @settings(max_examples=examples, derandomize=True, phases=[Phase.generate], **QUIET)
    @given(case=cases, deep=booleans())
    def ask(case: Case, deep: bool) -> None:
        if deep:
            put_real_ids(case, ids)
        seen.add(checked(service, case))

    with suppress(Unsatisfiable):  # of what has no parameters nothing can be wrong
        ask()
    return seen


def put_real_ids(case: Case, ids: Document) -> None:
    if case.method != "DELETE" and "session" not in case.path:
        case.path_parameters = {name: ids.get(name, value) for name, value in (case.path_parameters or {}).items()}
    if "/tus" in case.path:
        case.headers = {**(case.headers or {}), "Tus-Resumable": "1.0.0"}
    if isinstance(case.body, dict) and "upload_id" in case.body:
        case.body["upload_id"] = ids["upload_id"]


def checked(service: Harness, case: Case) -> int:
    arguments: dict[str, Any] = case.as_transport_kwargs(base_url="http://testserver")
    arguments = {name: value for name, value in arguments.items() if name not in ("cookies", "auth", "proxies")}
    if isinstance(arguments.get("data"), bytes):
        arguments["content"] = arguments.pop("data")
    try:
        answer = service.http.request(**arguments)
    except UnicodeError:  # what no client can send
        return 0
    if case.path == "/readyz":
        return answer.status_code  # 503, as no worker is there
    assert answer.status_code < 500, f"{case.method} {case.path}: {answer.status_code} {answer.text}"
    if answer.status_code >= 400 and case.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json", case.path
        assert {"type", "title", "detail", "status"} <= json.loads(answer.content).keys()
    return answer.status_code


def test_no_request_breaks_it(guarded: Harness) -> None:
    answered = hammer(guarded, 2)
    assert len(answered) > 30
    assert all(answered.values())
    assert any(status < 300 for status in answered["GET /v1/jobs/{job_id}"])
    assert 422 in answered["POST /v1/jobs"] & answered["GET /v1/jobs"]


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_no_request_of_very_many_breaks_it(guarded: Harness) -> None:
    answered = hammer(guarded, 60)
    reached = [name for name, seen in answered.items() if any(200 <= status < 300 for status in seen)]
    assert len(reached) > len(answered) / 2, answered
