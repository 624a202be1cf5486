import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import backoff
from api.client.client import DpdyClient
from api.client.errors import BadRequest, JobFailed, ServerUnreachable, raise_unless_succeeded
from dpdy_core.errors import BadInput, BadSettings, Cancelled

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(backoff.time, "sleep", slept.append)
    return slept


def client(handler: Handler, patience: float = 60.0) -> DpdyClient:
    return DpdyClient("http://server", "secret", httpx.MockTransport(handler), patience)


def problem(status: int, type: str, **fields: Any) -> httpx.Response:
    document = {"type": type, "title": "T", "status": status, "detail": "D", "remedy": "R", **fields}
    return httpx.Response(status, json=document, headers={"content-type": "application/problem+json"})


def sequence(*answers: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    seen: list[httpx.Request] = []
    left = list(answers)

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler, seen


# ---- requests and errors


def test_the_key_is_sent_as_bearer() -> None:
    handler, seen = sequence(httpx.Response(200, json={"id": "j"}))
    with client(handler) as dpdy:
        assert dpdy.job("j") == {"id": "j"}
    assert str(seen[0].url) == "http://server/v1/jobs/j"
    assert seen[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("server", ["server:8000", "", "ftp://server"])
def test_a_server_that_is_no_url_is_a_usage_error(server: str) -> None:
    with pytest.raises(BadSettings, match="not the URL"):
        DpdyClient(server)


def test_a_read_is_repeated_through_broken_connections_and_503(pauses: list[float]) -> None:
    busy = httpx.Response(503, headers={"Retry-After": "7"})
    handler, seen = sequence(httpx.ConnectError("no"), httpx.ReadError("cut"), busy, httpx.Response(200, json={}))
    with client(handler) as dpdy:
        dpdy.job("j")
    assert len(seen) == 4
    assert pauses[-1] >= 7  # the server's own wish


def test_a_server_that_stays_away_is_exit_code_6_and_no_failed_job() -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with client(handler, patience=0.0) as dpdy, pytest.raises(ServerUnreachable, match="does not answer") as caught:
        dpdy.job("j")
    assert caught.value.exit_code == 6
    assert "serve" in caught.value.remedy


def test_a_server_fault_is_not_the_callers_mistake() -> None:
    handler, _ = sequence(problem(500, "internal"))
    with client(handler) as dpdy, pytest.raises(ServerUnreachable, match="500"):
        dpdy.job("j")


def test_a_repeated_submission_carries_the_same_idempotency_key() -> None:
    handler, seen = sequence(httpx.ReadError("cut"), httpx.Response(202, json={"id": "j"}))
    with client(handler) as dpdy:
        dpdy.submit("u", "smoke", {"scene.steps": 3}, name="n", camera_paths=["orbit"])
        assert seen[0].headers["Idempotency-Key"] == seen[1].headers["Idempotency-Key"]
    assert json.loads(seen[1].content) == {
        "upload_id": "u",
        "preset": "smoke",
        "settings": {"scene.steps": 3},
        "name": "n",
        "camera_paths": ["orbit"],
    }


def test_a_retry_of_a_job_is_sent_once_only() -> None:
    handler, seen = sequence(httpx.ReadError("cut"))
    with client(handler) as dpdy, pytest.raises(ServerUnreachable):
        dpdy.retry("j")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "type", "code"),
    [(422, "bad-settings", 2), (404, "not-found", 2), (409, "not-retryable", 2), (422, "bad-input", 3), (413, "x", 3)],
)
def test_refusals_have_the_exit_code_of_their_cause(status: int, type: str, code: int) -> None:
    handler, _ = sequence(problem(status, f"https://dpdy/problems/{type}", errors=[{"field": "a.b", "detail": "no"}]))
    with client(handler) as dpdy, pytest.raises(BadRequest, match=r"D \(a.b: no\)") as caught:
        dpdy.job("j")
    assert (caught.value.exit_code, caught.value.type, caught.value.remedy) == (code, type, "R")


def test_a_refusal_without_a_problem_document_still_says_something() -> None:
    handler, _ = sequence(httpx.Response(403, text="<html>proxy</html>"))
    with client(handler) as dpdy, pytest.raises(BadRequest, match="answered 403"):
        dpdy.job("j")


def test_ends_of_jobs_map_to_errors() -> None:
    raise_unless_succeeded({"id": "j", "state": "succeeded"})
    with pytest.raises(Cancelled) as cancelled:
        raise_unless_succeeded({"id": "j", "state": "cancelled"})
    assert cancelled.value.exit_code == 5
    with pytest.raises(JobFailed, match="it ended as expired") as expired:
        raise_unless_succeeded({"id": "j", "state": "expired", "problem": None})
    assert expired.value.exit_code == 4
    film = {"type": "cameras-failed", "title": "T", "detail": "no parallax", "remedy": "move"}
    with pytest.raises(JobFailed, match="no parallax") as failed:
        raise_unless_succeeded({"id": "j", "state": "failed", "problem": film})
    assert (failed.value.exit_code, failed.value.remedy) == (3, "move")


# ---- uploads


def receiver(bodies: list[bytes], names: list[str]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        names.append(request.url.params["filename"])
        digest = hashlib.sha256(bodies[-1]).hexdigest()
        return httpx.Response(201, json={"id": "u", "sha256": digest, "state": "checking"})

    return handler


def test_a_file_is_streamed_with_progress(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "my video.mp4").write_bytes(data)
    bodies: list[bytes] = []
    names: list[str] = []
    shown: list[tuple[int, int]] = []
    with client(receiver(bodies, names)) as dpdy:
        dpdy.upload(tmp_path / "my video.mp4", lambda done, total: shown.append((done, total)))
    assert bodies == [data]
    assert names == ["my video.mp4"]
    assert shown[-1] == (len(data), len(data))
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)


def test_a_folder_is_sent_as_a_zip(tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "0.png").write_bytes(b"png")
    bodies: list[bytes] = []
    names: list[str] = []
    with client(receiver(bodies, names)) as dpdy:
        dpdy.upload(tmp_path / "desk")
    assert names == ["desk.zip"]
    assert zipfile.ZipFile(BytesIO(bodies[0])).namelist() == ["0.png"]


def test_an_upload_that_arrives_changed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"abc")
    handler, _ = sequence(httpx.Response(201, json={"id": "u", "sha256": "0" * 64}))
    with client(handler) as dpdy, pytest.raises(ServerUnreachable, match="changed on its way"):
        dpdy.upload(tmp_path / "v.mp4")


def test_a_missing_capture_is_bad_input() -> None:
    with client(sequence()[0]) as dpdy, pytest.raises(BadInput, match="does not exist"):
        dpdy.upload(Path("no/such/file.mp4"))


def test_a_rejected_upload_says_why_with_exit_code_3() -> None:
    why = {"type": "bad-input", "title": "T", "detail": "no moov atom", "remedy": "copy it again"}
    handler, _ = sequence(
        httpx.Response(200, json={"state": "checking"}), httpx.Response(200, json={"state": "rejected", "problem": why})
    )
    with client(handler) as dpdy, pytest.raises(BadRequest, match="no moov atom") as caught:
        dpdy.wait_upload("u", poll=0)
    assert caught.value.exit_code == 3


# ---- following


def stream(*events: tuple[int, str], cut: bool = False) -> httpx.Response:
    def body() -> Iterator[bytes]:
        for number, state in events:
            yield f'id: {number}\nevent: state\ndata: {{"state": "{state}"}}\n\n'.encode()
        if cut:
            raise httpx.ReadError("cut")

    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=body())


class Server:
    """Answers the job from `states` (the last one stays) and its events from `streams`."""

    def __init__(self, states: list[str], streams: list[httpx.Response | Exception]) -> None:
        self.states, self.streams = states, streams
        self.last_ids: list[str | None] = []
        self.waits: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.last_ids.append(request.headers.get("Last-Event-ID"))
            answer = self.streams.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if "wait" in request.url.params:
            self.waits.append(request.url.params["wait"])
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return httpx.Response(200, json={"id": "j", "state": state})


def test_events_go_on_after_a_cut_without_gap_or_repeat() -> None:
    streams = [stream((1, "queued"), (2, "running"), cut=True), httpx.ConnectError("restart"), stream((3, "succeeded"))]
    server = Server(["succeeded"], list(streams))
    with client(server) as dpdy:
        assert [event["id"] for event in dpdy.events("j")] == ["1", "2", "3"]
    assert server.last_ids == [None, "2", "2"]


def test_events_are_taken_up_again_when_the_server_ends_a_long_stream() -> None:
    server = Server(["running", "succeeded"], [stream((1, "running")), stream((2, "succeeded"))])
    with client(server) as dpdy:
        assert [event["id"] for event in dpdy.events("j")] == ["1", "2"]


def test_watch_gives_the_job_to_its_terminal_state() -> None:
    server = Server(["queued", "running", "succeeded"], [stream((1, "running"), (2, "succeeded"))])
    with client(server) as dpdy:
        assert [job["state"] for job in dpdy.watch("j", interval=0)] == ["queued", "running", "succeeded"]


def test_watch_asks_where_no_event_stream_comes_through() -> None:
    page = httpx.Response(200, text="<html>", headers={"content-type": "text/html"})
    server = Server(["queued", "running", "failed"], [page])
    with DpdyClient("http://server", None, httpx.MockTransport(server), patience=0.0) as dpdy:
        assert [job["state"] for job in dpdy.watch("j")] == ["queued", "running", "failed"]
    assert server.waits == ["10", "10"]


def test_watch_of_a_finished_job_ends_at_once() -> None:
    server = Server(["cancelled"], [])
    with client(server) as dpdy:
        assert [job["state"] for job in dpdy.watch("j")] == ["cancelled"]


def test_watch_raises_when_the_server_is_gone_and_does_not_invent_an_end() -> None:
    answers: list[httpx.Response] = [httpx.Response(200, json={"id": "j", "state": "running"})]

    def handler(_request: httpx.Request) -> httpx.Response:
        if answers:
            return answers.pop()
        raise httpx.ConnectError("gone")

    with client(handler, patience=0.0) as dpdy:
        watching = dpdy.watch("j")
        assert next(watching)["state"] == "running"
        with pytest.raises(ServerUnreachable):
            next(watching)


def test_log_lines_follow_the_cursor_to_the_end_of_the_job() -> None:
    pages = {None: (["a", "b"], "20"), "20": ([], "20")}

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            items, cursor = pages[request.url.params.get("after")]
            if request.url.params.get("after") == "20":
                pages["20"] = (["c"], "30")
                pages["30"] = ([], "30")
            return httpx.Response(200, json={"items": [{"text": text} for text in items], "next_cursor": cursor})
        return httpx.Response(200, json={"state": "running" if "30" not in pages else "succeeded"})

    with client(handler) as dpdy:
        assert [line["text"] for line in dpdy.log_lines("j", follow=True)] == ["a", "b", "c"]


def test_a_page_of_jobs_is_asked_with_its_filters() -> None:
    handler, seen = sequence(httpx.Response(200, json={"items": [], "next_cursor": None}))
    with client(handler) as dpdy:
        dpdy.list(state="running", limit=5)
    assert dict(seen[0].url.params) == {"state": "running", "limit": "5"}


def test_a_render_names_its_path() -> None:
    handler, seen = sequence(httpx.Response(202, json={"id": "r"}))
    with client(handler) as dpdy:
        dpdy.render("j", "orbit", fps=12)
    assert json.loads(seen[0].content) == {"path": "orbit", "fps": 12}
