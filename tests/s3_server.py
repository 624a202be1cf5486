"""A real S3-compatible server of the test's own: SeaweedFS, from a Python wheel."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import free_port, process, wait_for

WEED = Path(sys.executable).parent / "weed"
BUCKET = "dpdy"


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and the keys of its only user."""

    endpoint: str
    access_key: str = "dpdy-tests"
    secret_key: str = "not-a-secret-of-anybody"

    @property
    def environment(self) -> dict[str, str]:
        """What a user of it needs: the usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A client of its own, apart from the one under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )


@contextmanager
def s3_server(address: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> Iterator[S3Server]:
    """SeaweedFS with the bucket `dpdy`, for as long as the block lasts. `prefix`: a command in front of its own."""
    folder = Path(tempfile.mkdtemp(prefix="dpdy-s3-"))
    port = free_port()
    server = S3Server(f"http://{address}:{port}")
    keys = {"accessKey": server.access_key, "secretKey": server.secret_key}
    actions = ["Admin", "Read", "Write", "List"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "tests", "credentials": [keys], "actions": actions}]})
    )
    command = [*prefix, str(WEED), "server", f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}", "-s3"]
    command += [
        f"-s3.port={port}",
        f"-s3.config={folder / 's3.json'}",
        "-volume.max=50",
        "-master.volumeSizeLimitMB=64",
    ]
    for part in ("master", "volume", "filer"):
        command.append(f"-{part}.port={free_port()}")
    for part in ("master", "volume", "filer", "s3"):
        command.append(f"-{part}.port.grpc={free_port()}")
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # their fixed ports would allow one server a machine
    try:
        with process(command, cwd=folder) as running:
            client = server.client()

            def made() -> bool:
                assert running.poll() is None, running.log.read_text()[-3000:]  # type: ignore[attr-defined]
                try:
                    if not client.list_buckets()["Buckets"]:
                        client.create_bucket(Bucket=BUCKET)
                    client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
                    client.delete_object(Bucket=BUCKET, Key="ready")
                except (BotoCoreError, ClientError):
                    return False
                return True

            wait_for(made, 40, pause=0.3)
            try:
                yield server
            finally:
                running.kill()  # it would take 15 s to say good-bye to itself
    finally:
        shutil.rmtree(folder, ignore_errors=True)
