from collections.abc import Callable, Iterator
from typing import Any

from api.client.sse import parse_events
from api.settings import Settings
from tests.harness import Harness, harness, steer


def stream(service: Harness, job_id: str, **options: Any) -> Iterator[dict[str, Any]]:
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events", **options) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield from parse_events(answer.iter_lines())


def test_stream_tells_the_whole_story_and_ends(service: Harness) -> None:
    job = service.finished(steps=4)
    events = list(stream(service, job["id"]))
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    states = [event["data"]["state"] for event in events if event["event"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert events[-1]["data"]["metrics"]["mean"] == {"psnr": 20.0}
    done = [event["data"]["stage"] for event in events if event["data"].get("stage_state") == "done"]
    assert done == [stage["name"] for stage in job["stages"]]
    progress = [event["data"]["progress"] for event in events]
    assert progress == sorted(progress)
    preview = next(event for event in events if event["event"] == "preview")
    assert service.http.get(preview["data"]["url"]).content == b"\xff\xd8preview"
    warning = next(event for event in events if event["event"] == "warning")
    assert warning["data"]["message"] == "scene: the stand-in computes nothing" == job["warnings"][0]


def test_resumes_without_gap_or_repeat(service: Harness) -> None:
    job = service.finished()
    everything = list(stream(service, job["id"]))
    for last in (0, 1, len(everything) // 2, len(everything) - 1, len(everything)):
        rest = list(stream(service, job["id"], headers={"Last-Event-ID": str(last)}))
        assert rest == everything[last:]
    assert list(stream(service, job["id"], params={"after": 3})) == everything[3:]


def test_retry_goes_on_in_the_same_stream(service: Harness) -> None:
    job = service.submit(steer(fail=4))
    service.runner.run(job["id"])
    service.http.post(f"/v1/jobs/{job['id']}/retry")
    service.runner.run(job["id"])
    states = [(e["data"]["attempt"], e["data"]["state"]) for e in stream(service, job["id"]) if e["event"] == "state"]
    assert states == [(1, "queued"), (1, "running"), (1, "failed"), (2, "queued"), (2, "running"), (2, "failed")]


def test_stream_has_a_longest_length(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(stream_seconds=0.3)) as service:
        job = service.submit()
        assert [event["event"] for event in stream(service, job["id"])] == ["state"]


def test_errors_have_a_status(service: Harness) -> None:
    assert service.http.get("/v1/jobs/none/events").status_code == 404
    job = service.submit()
    answer = service.http.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")
