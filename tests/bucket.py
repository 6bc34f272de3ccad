"""A store that speaks S3, as a process of its own on loopback, and what a program needs in order to use it; and a bucket in
memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Store:
    """endpoint: its address. variables: for whoever may read and write it."""

    endpoint: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> object:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="somebody",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )

    def put(self, bucket: str, folder: Path, below: str = "") -> None:
        """A new bucket that holds the files of a folder."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = below + path.relative_to(folder).as_posix()
                client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def started(*, checks_keys: bool = False) -> tuple[subprocess.Popen[bytes], Store]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import os, sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    if checks_keys:
        code = "import os; os.environ['INITIAL_NO_AUTH_ACTION_COUNT'] = '0'; " + code
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, Store(f"http://127.0.0.1:{port}")
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    process.kill()
    raise AssertionError("the store did not begin")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """One that lets everybody in."""
    process, found = started()
    yield found
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def strict_store() -> Iterator[Store]:
    """One that knows nobody's keys."""
    process, found = started(checks_keys=True)
    yield found
    process.kill()
    process.wait()


def in_memory(folder: Path) -> str:
    """The address of a bucket in memory that holds the files of a folder."""
    import fsspec

    fsspec.filesystem("memory").put(f"{folder}/", f"/{folder.parent.name}/{folder.name}/", recursive=True)
    return f"memory://{folder.parent.name}/{folder.name}"
