"""An S3 server for the tests of the lake; each test has a folder of its own in its bucket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests import object_store


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with object_store.s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in a bucket of a real S3 server."""
    _use(s3_endpoint, tmp_path, monkeypatch)
    return Path(f"s3://bucket/{uuid.uuid4().hex}")


@pytest.fixture
def proxy(
    s3: Path, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object_store.FaultyProxy]:
    """The way to the same server through a proxy that misbehaves on request."""
    with object_store.faulty_proxy(s3_endpoint) as proxy:
        _use(proxy.endpoint, tmp_path, monkeypatch)
        yield proxy


def _use(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**object_store.ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAKE_CACHE", str(tmp_path / "cache"))
    # The client of another endpoint is not to be used again.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
