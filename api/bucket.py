"""Objects in an S3 bucket, through boto3: endpoint, region and keys come from the usual AWS variables."""

import errno
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.loaders import create_loader
from botocore.response import StreamingBody

from dpdy_core.rundir import sha256_file

CHUNK = 1 << 20
PART = 16 << 20  # of a multipart upload
_TRANSFER = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
_DESCRIPTIONS = create_loader()  # of services: megabytes of JSON, read once for all clients
_MISSING = ("404", "NoSuchKey", "NotFound")


class DamagedObject(ValueError):
    """An object that is not what it was stored as."""


@dataclass(frozen=True)
class StoredObject:
    """What the bucket says of an object; `key` is relative to the prefix."""

    key: str
    size: int
    modified: datetime
    sha256: str | None = None


class Bucket:
    """The objects below `s3://bucket/prefix`. Safe to use from several threads.

    Objects get no ACL: they are as private as their bucket, and only the service hands them out. Raises
    FileNotFoundError for a key that is not there, OSError (EIO) for a storage that does not answer or refuses.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._name = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=32,
        )
        session = botocore.session.get_session()
        session.register_component("data_loader", _DESCRIPTIONS)
        self._client: Any = boto3.Session(botocore_session=session).client("s3", config=config)

    def check(self) -> None:
        """Ask whether the bucket answers."""
        with _errors(self._name):
            self._client.head_bucket(Bucket=self._name)

    def put(self, key: str, body: bytes | IO[bytes], sha256: str) -> None:
        """Store an object with its hash, in parts if it is large: nobody sees a half of it. Closes a given file."""
        extra = {"Metadata": {"sha256": sha256}}
        file = io.BytesIO(body) if isinstance(body, bytes) else body
        with _errors(key), file:
            self._client.upload_fileobj(file, self._name, self._prefix + key, ExtraArgs=extra, Config=_TRANSFER)

    def stat(self, key: str) -> StoredObject | None:
        """What is known of an object, or None."""
        try:
            with _errors(key):
                found = self._client.head_object(Bucket=self._name, Key=self._prefix + key)
        except FileNotFoundError:
            return None
        return StoredObject(key, found["ContentLength"], found["LastModified"], found["Metadata"].get("sha256"))

    def read(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of an object, as they come. The first are asked for now."""
        if start >= stop:
            return iter(())
        with _errors(key):
            found = self._client.get_object(
                Bucket=self._name, Key=self._prefix + key, Range=f"bytes={start}-{stop - 1}"
            )
        return _chunks(key, found["Body"])

    def read_all(self, key: str) -> bytes:
        """A small object."""
        with _errors(key):
            body: bytes = self._client.get_object(Bucket=self._name, Key=self._prefix + key)["Body"].read()
        return body

    def fetch(self, key: str, target: Path, sha256: str) -> None:
        """Download to `target`, which is there only when it is whole. Raises DamagedObject for another hash."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.fetched")
        where = {"Bucket": self._name, "Key": self._prefix + key}
        try:
            with _errors(key), partial.open("wb") as file:
                found = self._client.get_object(**where)
                with found["Body"] as body:
                    if small := found["ContentLength"] <= PART:
                        file.write(body.read())
                if not small:
                    self._client.download_fileobj(*where.values(), file, Config=_TRANSFER)
            if sha256_file(partial) != sha256:
                raise DamagedObject(f"{key} does not have the hash that it was stored with")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so, in the order of their keys."""
        with _errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    key = entry["Key"].removeprefix(self._prefix)
                    yield StoredObject(key, entry["Size"], entry["LastModified"])

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is not there is no error."""
        wanted = [{"Key": self._prefix + key} for key in keys]
        for first in range(0, len(wanted), 1000):
            with _errors(wanted[first]["Key"]):
                batch = {"Objects": wanted[first : first + 1000], "Quiet": True}
                answer = self._client.delete_objects(Bucket=self._name, Delete=batch)
            if failed := [error for error in answer.get("Errors", []) if error.get("Code") not in _MISSING]:
                raise OSError(errno.EIO, f"the bucket did not delete it: {failed[0].get('Code')}", failed[0]["Key"])

    def unfinished(self, prefix: str, before: datetime | None = None) -> list[tuple[str, str]]:
        """Multipart uploads that were begun (before a time) and neither completed nor aborted: key and upload id."""
        with _errors(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._name, Prefix=self._prefix + prefix
            )
            found = [upload for page in pages for upload in page.get("Uploads", [])]
        return [(u["Key"], u["UploadId"]) for u in found if before is None or u["Initiated"] < before]

    def abort(self, uploads: Iterable[tuple[str, str]]) -> None:
        """Free the parts of unfinished multipart uploads."""
        for key, upload_id in uploads:
            with suppress(FileNotFoundError), _errors(key):
                self._client.abort_multipart_upload(Bucket=self._name, Key=key, UploadId=upload_id)


def _chunks(key: str, body: StreamingBody) -> Iterator[bytes]:
    with _errors(key), body:
        yield from body.iter_chunks(CHUNK)


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Errors of the bucket as errors of a storage. They name no key and no endpoint beyond what boto says."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in (*_MISSING, "NoSuchUpload"):
            raise FileNotFoundError(errno.ENOENT, "it is not in the bucket", name) from error
        raise OSError(errno.EIO, f"the bucket refused it ({code})", name) from error
    except (BotoCoreError, HTTPClientError, Boto3Error) as error:
        raise OSError(errno.EIO, f"the bucket does not answer ({type(error).__name__})", name) from error
