"""A client of the REST API: upload a capture, submit a job, follow it, fetch what it made."""

import hashlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from api.client.backoff import Backoff
from api.client.download import download_file, inside
from api.client.errors import BadRequest, ServerUnreachable, refusal
from api.client.pack import pack_folder
from api.client.sse import parse_events
from dpdy_core.errors import BadInput, BadSettings

Document = dict[str, Any]
Progress = Callable[[int, int], None]

TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
RESULTS = ("renders/*.mp4", "evaluation/*", "report.html", "config.json")
CHUNK = 1 << 20
STREAM_PATIENCE = 6.0  # seconds without an event stream before `watch` asks instead
SILENCE = 45.0  # seconds; the server pings an event stream every 15


class DpdyClient:
    """Talks to one server. Calls that may be repeated are, with back-off, until `patience` seconds have passed.

    Raises ServerUnreachable (never JobFailed) when no answer comes, BadRequest when the server refuses.
    """

    def __init__(
        self,
        server: str,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        patience: float = 60.0,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise BadSettings(f"{server!r} is not the URL of a server", "write for example http://127.0.0.1:8000")
        self.server = server.rstrip("/")
        self._patience = patience
        self._http = httpx.Client(
            base_url=f"{self.server}/v1",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(30.0, connect=10.0, read=90.0),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # ---- uploads

    def upload(self, capture: Path, progress: Progress | None = None) -> Document:
        """Send a video, a zip or a folder (zipped first); returns the upload as the server stored it."""
        if not capture.exists():
            raise BadInput(f"{capture} does not exist", "check the path")
        if capture.is_file():
            return self._send(capture, capture.name, progress)
        with tempfile.TemporaryDirectory(prefix="dpdy-") as scratch:
            archive = Path(scratch) / "capture.zip"
            pack_folder(capture, archive)
            return self._send(archive, f"{capture.resolve().name}.zip", progress)

    def _send(self, file: Path, name: str, progress: Progress | None) -> Document:
        size = file.stat().st_size
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            nonlocal digest
            digest, sent = hashlib.sha256(), 0
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
                    yield chunk
                    sent += len(chunk)
                    if progress:
                        progress(sent, size)

        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        upload: Document = self._json(
            "POST", "/uploads", params={"filename": name}, headers=headers, body=chunks, repeat=True
        )
        if upload.get("sha256") not in (None, digest.hexdigest()):
            raise ServerUnreachable(f"{name} was changed on its way to the server", "upload it again")
        return upload

    def get_upload(self, upload_id: str) -> Document:
        """The upload's state and, when it was checked, its capture report."""
        return self._json("GET", f"/uploads/{upload_id}")

    def wait_upload(self, upload_id: str, poll: float = 0.5) -> Document:
        """The upload once it is `ready`. Raises BadRequest with the reason if it was rejected."""
        while True:
            upload = self.get_upload(upload_id)
            if upload["state"] == "rejected":
                raise BadRequest(415, {"type": "upload-rejected", **(upload.get("problem") or {})})
            if upload["state"] == "ready":
                return upload
            time.sleep(poll)

    # ---- jobs

    def submit(
        self,
        upload_id: str,
        preset: str = "fast",
        settings: Mapping[str, Any] | None = None,
        name: str | None = None,
        camera_paths: Sequence[Any] = (),
        **fields: Any,
    ) -> Document:
        """Start a job. Sent with an idempotency key, so a repeated submission makes one job only."""
        body = {"upload_id": upload_id, "preset": preset, "settings": dict(settings or {}), **fields}
        body |= {"name": name} if name else {}
        body |= {"camera_paths": list(camera_paths)} if camera_paths else {}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._json("POST", "/jobs", json=body, headers=headers, repeat=True)

    def job(self, job_id: str, wait: float | None = None) -> Document:
        """The job; with `wait` (seconds, at most 60) the answer comes on its next change."""
        return self._json("GET", f"/jobs/{job_id}", params={"wait": wait} if wait else None)

    def list(
        self, state: str | None = None, tag: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Document:
        """One page of jobs, newest first: `{items, next_cursor}`."""
        query = {"state": state, "tag": tag, "limit": limit, "cursor": cursor}
        return self._json("GET", "/jobs", params={key: value for key, value in query.items() if value is not None})

    def cancel(self, job_id: str) -> Document:
        """Ask the job to stop."""
        return self._json("POST", f"/jobs/{job_id}/cancel", repeat=True)

    def retry(self, job_id: str) -> Document:
        """Start another attempt that goes on from the last checkpoint."""
        return self._json("POST", f"/jobs/{job_id}/retry")

    def delete(self, job_id: str) -> Document:
        """Delete the job's files; returns the tombstone."""
        return self._json("DELETE", f"/jobs/{job_id}")

    def logs(self, job_id: str, after: str | None = None) -> Document:
        """Log lines after a cursor: `{items, next_cursor}`."""
        return self._json("GET", f"/jobs/{job_id}/logs", params={"after": after} if after is not None else None)

    def log_lines(self, job_id: str, follow: bool = False, poll: float = 1.0) -> Iterator[Document]:
        """Every log line so far; with `follow`, also those to come until the job ends."""
        after = None
        while True:
            ended = not follow or self.job(job_id)["state"] in TERMINAL  # asked first: later lines are then all there
            page = self.logs(job_id, after)
            yield from page["items"]
            after = page["next_cursor"]
            if not page["items"]:
                if ended:
                    return
                time.sleep(poll)

    def render(self, job_id: str, path: Any, **fields: Any) -> Document:
        """Start another camera path (a name, or a nerfstudio camera-path document) from a finished job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._json(
            "POST", f"/jobs/{job_id}/renders", json={"path": path, **fields}, headers=headers, repeat=True
        )

    # ---- following

    def events(
        self, job_id: str, last_event_id: str | None = None, patience: float | None = None
    ) -> Iterator[Document]:
        """The job's events to its end, without a gap: a broken stream is taken up again at its `Last-Event-ID`.

        Each has `id`, `event` and `data`. Raises ServerUnreachable if the stream cannot be had for `patience` seconds.
        """
        backoff = Backoff(self._patience if patience is None else patience)
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            timeout = httpx.Timeout(10.0, read=SILENCE)
            try:
                with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=timeout) as response:
                    if response.status_code >= 400:
                        response.read()
                        raise refusal(response)
                    if not response.headers.get("content-type", "").startswith("text/event-stream"):
                        raise ServerUnreachable("the server sends no event stream", "poll the job instead")
                    for event in parse_events(response.iter_lines()):
                        last_event_id = event["id"] or last_event_id
                        backoff.reset()
                        yield event
            except (httpx.TransportError, ServerUnreachable) as error:
                backoff.wait(_unreachable(self.server, error))
                continue
            if self.job(job_id)["state"] in TERMINAL:  # streams also end when the server limits their length
                return
            backoff.wait(ServerUnreachable("the event stream ended early", "poll the job instead"))

    def watch(self, job_id: str, interval: float = 0.5) -> Iterator[Document]:
        """The job whenever it changed, at most every `interval` seconds, its terminal state last.

        Listens to the event stream; where there is none (a proxy that holds streams back), asks again and again.
        """
        job = self.job(job_id)
        yield job
        if job["state"] in TERMINAL:
            return
        try:
            asked = time.monotonic()
            for _ in self.events(job_id, patience=min(STREAM_PATIENCE, self._patience)):
                if time.monotonic() - asked >= interval:
                    job, asked = self.job(job_id), time.monotonic()
                    yield job
                    if job["state"] in TERMINAL:
                        return
        except ServerUnreachable:
            pass  # of the stream; the questions below find out about the server
        while job["state"] not in TERMINAL:
            job = self.job(job_id, wait=10)
            yield job

    # ---- results

    def artifacts(self, job_id: str) -> Sequence[Document]:
        """Every file of the job: path, size, sha256, media type, url."""
        listing = self._json("GET", f"/jobs/{job_id}/artifacts")
        items: Sequence[Document] = listing["items"] if isinstance(listing, dict) else listing
        return items

    def download(
        self, job_id: str, folder: Path, only: Sequence[str] = RESULTS, progress: Progress | None = None
    ) -> Sequence[Path]:
        """Fetch the artifacts that match one of the patterns; resumes and verifies. Returns their paths."""
        wanted = [item for item in self.artifacts(job_id) if any(fnmatch(item["path"], pattern) for pattern in only)]
        total, before = sum(item["size"] for item in wanted), 0
        paths = []
        for item in wanted:
            target = inside(folder, item["path"])
            url = f"/jobs/{job_id}/artifacts/{quote(item['path'])}"
            backoff = Backoff(self._patience)
            while True:
                try:
                    for done in download_file(self._http, url, target, item["size"], item["sha256"]):
                        backoff.reset()
                        if progress:
                            progress(before + done, total)
                    break
                except (httpx.TransportError, ServerUnreachable) as error:
                    backoff.wait(_unreachable(self.server, error))
            before += item["size"]
            paths.append(target)
        return paths

    # ---- requests

    def _json(self, method: str, path: str, **options: Any) -> Any:
        response = self.request(method, path, **options)
        return response.json() if response.content else {}

    def request(
        self,
        method: str,
        path: str,
        body: Callable[[], Iterator[bytes]] | None = None,
        repeat: bool | None = None,
        **options: Any,
    ) -> httpx.Response:
        """One answer below 400. `repeat`: the call may be made twice (default for all but POST)."""
        backoff = Backoff(self._patience)
        repeat = method != "POST" if repeat is None else repeat
        while True:
            try:
                response = self._http.request(method, path, content=body() if body else None, **options)
            except httpx.TransportError as error:
                if not repeat and not isinstance(error, httpx.ConnectError):
                    raise _unreachable(self.server, error) from error
                backoff.wait(_unreachable(self.server, error))
                continue
            if response.status_code < 400:
                return response
            if response.status_code not in (429, 502, 503, 504) or not repeat:
                raise refusal(response)
            backoff.wait(refusal(response), response.headers.get("Retry-After"))


def _unreachable(server: str, error: httpx.TransportError | ServerUnreachable) -> ServerUnreachable:
    if isinstance(error, ServerUnreachable):
        return error
    return ServerUnreachable(
        f"{server} does not answer ({type(error).__name__}: {error})", "start it with `dpdy serve`, or give --server"
    )
