"""Resumable uploads with a client that nobody here wrote (tuspy), over real connections."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.uploader import Uploader

from api.jobs.files import make_files
from api.settings import Settings
from tests.harness import Harness, harness, lasting_violations, served
from tests.servers import wait_for
from tests.tcp_proxy import tcp_proxy
from worker.invariants import check

LIMIT = 20_000_000
BODY = os.urandom(6_000_000)


@pytest.fixture
def service(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(max_upload_bytes=LIMIT)) as running:
        yield running
        assert lasting_violations(running) == []


@pytest.fixture
def port(service: Harness) -> Iterator[int]:
    with served(service) as port:
        yield port


def uploader(server: str, body: bytes = BODY, **options: object) -> Uploader:
    metadata = {"filename": "film.mp4", "sha256": hashlib.sha256(BODY).hexdigest()}
    client = TusClient(f"{server}/v1/uploads/tus")
    return client.uploader(
        file_stream=io.BytesIO(body), **{"metadata": metadata, "chunk_size": 1 << 20, "retry_delay": 0, **options}
    )


def whole(service: Harness, sent: Uploader) -> None:
    """The upload is ready, with the bytes that were sent."""
    identity = sent.url.rpartition("/")[2]
    found = wait_for(lambda: (u := service.http.get(f"/v1/uploads/{identity}").json())["state"] == "ready" and u)
    assert (found["sha256"], found["filename"]) == (hashlib.sha256(BODY).hexdigest(), "film.mp4")


@pytest.mark.parametrize("checked", [False, True])
def test_in_chunks(service: Harness, port: int, checked: bool) -> None:
    sent = uploader(f"http://127.0.0.1:{port}", upload_checksum=checked)
    sent.upload()
    whole(service, sent)


@pytest.mark.parametrize("checked", [False, True])
def test_a_connection_that_breaks_thrice(service: Harness, port: int, checked: bool) -> None:
    with tcp_proxy(port, cuts=3, budget=1_500_000) as proxy:
        sent = uploader(proxy.url, chunk_size=4_000_000, retries=20, upload_checksum=checked)
        sent.upload()
    assert proxy.cuts == 0
    whole(service, sent)


def test_another_process_goes_on(service: Harness, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    first = uploader(url)
    first.upload(stop_at=2_500_000)
    second = uploader(url, url=first.url)
    assert second.offset == 2_500_000
    second.upload()
    whole(service, second)


def test_more_than_the_limit(port: int) -> None:
    url = f"http://127.0.0.1:{port}/v1/uploads/tus"
    assert httpx.options(url).headers["Tus-Max-Size"] == str(LIMIT)
    with pytest.raises(TusCommunicationError) as refused:
        uploader(f"http://127.0.0.1:{port}", body=bytes(LIMIT + 1)).upload()
    assert refused.value.status_code == 413


def test_a_client_that_is_behind_is_told_so(service: Harness, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    first = uploader(url)
    first.upload(stop_at=1_000_000)
    late = uploader(url, url=first.url)
    first.upload(stop_at=2_000_000)
    with pytest.raises(TusUploadFailed) as refused:
        late.upload()
    assert refused.value.status_code == 409
    late.retries = 1
    late.upload()
    whole(service, late)


def test_a_terminated_upload_cannot_go_on(service: Harness, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    sent = uploader(url)
    sent.upload(stop_at=1_000_000)
    assert httpx.delete(sent.url, headers={"Tus-Resumable": "1.0.0"}).status_code == 204
    with pytest.raises(TusUploadFailed) as refused:
        sent.upload()
    assert refused.value.status_code == 410
    with pytest.raises(TusCommunicationError):
        uploader(url, url=sent.url)
    assert list(service.runner.files.uploads.iterdir()) == []


def test_into_a_bucket_that_is_away_for_a_while(
    make_settings: Callable[..., Settings], s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.jobs.uploads._PAUSE", 0.1)
    settings = make_settings(storage_url=s3_url, scratch=tmp_path / "scratch")
    files = make_files(settings)
    with harness(settings) as first, served(first) as port:
        sent = uploader(f"http://127.0.0.1:{port}")
        sent.upload(stop_at=4_000_000)
    identity = sent.url.rpartition("/")[2]
    with monkeypatch.context() as away:
        away.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with harness(settings) as second, served(second) as port:
            sent = uploader("", url=f"http://127.0.0.1:{port}/v1/uploads/tus/{identity}")
            sent.upload()
            assert sent.offset == len(BODY)
            assert second.http.get(f"/v1/uploads/{identity}").json()["state"] == "checking"
    with harness(settings) as third:
        whole(third, sent)
        wait_for(lambda: not any(files.uploads.iterdir()))
        assert check(third.sessions, files, settings) == []
