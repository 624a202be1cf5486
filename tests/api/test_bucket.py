"""The bucket against a real S3-compatible server (SeaweedFS)."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from api import bucket as module
from api.bucket import Bucket, DamagedObject
from tests.s3_server import BUCKET, S3Server


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_put_is_read_in_whole_and_in_part(s3_url: str, tmp_path: Path) -> None:
    bucket = Bucket(s3_url)
    data = os.urandom(3 * module.CHUNK + 5)
    bucket.check()
    bucket.put("jobs/a", data, sha(data))
    found = bucket.stat("jobs/a")
    assert found is not None
    assert (found.key, found.size, found.sha256) == ("jobs/a", len(data), sha(data))
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=5)
    for start, stop in ((0, len(data)), (7, 9), (module.CHUNK, len(data)), (4, 4)):
        assert b"".join(bucket.read("jobs/a", start, stop)) == data[start:stop]
    bucket.fetch("jobs/a", tmp_path / "deep" / "a", sha(data))
    assert (tmp_path / "deep" / "a").read_bytes() == data


def test_large_files_go_in_parts_and_nothing_else_is_left(s3_url: str, tmp_path: Path) -> None:
    bucket = Bucket(s3_url)
    file = tmp_path / "large"
    file.write_bytes(os.urandom(2 * module.PART + 1))
    digest = sha(file.read_bytes())
    bucket.put("large", file.open("rb"), digest)
    bucket.fetch("large", tmp_path / "copy", digest)
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert bucket.unfinished("") == []


def test_a_damaged_object_is_not_taken_for_the_file(s3_url: str, tmp_path: Path) -> None:
    bucket = Bucket(s3_url)
    bucket.put("a", b"changed", sha(b"as it was"))
    with pytest.raises(DamagedObject, match="hash"):
        bucket.fetch("a", tmp_path / "a", sha(b"as it was"))
    assert list(tmp_path.iterdir()) == []


def test_strangers_read_nothing(s3_url: str, s3_server: S3Server) -> None:
    Bucket(s3_url).put("a", b"private", sha(b"private"))
    answer = httpx.get(f"{s3_server.endpoint}/{BUCKET}/{s3_url.rpartition('/')[2]}/a")
    assert (answer.status_code, b"private" in answer.content) == (403, False)


def test_prefixes_keep_services_apart(s3_url: str) -> None:
    one, other = Bucket(s3_url), Bucket(s3_url + "-other")
    one.put("jobs/a", b"1", sha(b"1"))
    other.put("jobs/b", b"22", sha(b"22"))
    assert [(found.key, found.size) for found in one.objects("jobs/")] == [("jobs/a", 1)]
    one.remove(["jobs/a", "jobs/b", "jobs/c"])
    assert list(one.objects("")) == []
    assert [found.key for found in other.objects("")] == ["jobs/b"]


def test_unfinished_uploads_are_found_and_freed(s3_url: str, s3_server: S3Server) -> None:
    bucket = Bucket(s3_url)
    key = f"{s3_url.rpartition('/')[2]}/jobs/x/part"
    s3_server.client().create_multipart_upload(Bucket=BUCKET, Key=key)
    assert [name for name, _ in bucket.unfinished("jobs/x/")] == [key]
    assert bucket.unfinished("jobs/x/", before=datetime.now(UTC) - timedelta(hours=1)) == []
    bucket.abort(bucket.unfinished("jobs/x/"))
    assert bucket.unfinished("") == []


def test_errors_are_those_of_a_storage(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(s3_url)
    assert bucket.stat("none") is None
    for ask in (lambda: bucket.read("none", 0, 5), lambda: bucket.fetch("none", tmp_path / "n", "")):
        with pytest.raises(FileNotFoundError):
            ask()
    with pytest.raises(OSError, match="not in the bucket"):
        Bucket("s3://no-such-bucket").check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(OSError, match="refused"):
        Bucket(s3_url).put("a", b"", sha(b""))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="does not answer"):
        Bucket(s3_url).stat("a")
