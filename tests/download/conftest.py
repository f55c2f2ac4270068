"""A hostile web server, and crawls of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.download.spec import DownloadParameters, DownloadSpec, spec_for
from pipelines.progress import QUIET_VARIABLE
from tests.download.hostile_server import HostileServer


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET_VARIABLE, "1")


@pytest.fixture
def server() -> Iterator[HostileServer]:
    server = HostileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.stopping.set()
    server.gate_open.set()
    server.shutdown()
    server.server_close()


class CrawlMaker:
    """Writes crawls, and the specs that download them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def crawl(
        self, urls: Sequence[str | None], captions: Sequence[object] | None = None, **keys: object
    ) -> Path:
        """The manifest of a crawl of one list; captions are text, bytes or None."""
        if captions is None:
            captions = [f"caption {at}" for at in range(len(urls))]
        raw = [text.encode() if isinstance(text, str) else text for text in captions]
        table = pa.table({"url": pa.array(urls, pa.string()), "caption": pa.array(raw, pa.binary())})
        pq.write_table(table, self.folder / "urls.parquet")
        return self.manifest(**keys)

    def manifest(self, **keys: object) -> Path:
        path = self.folder / "crawl.yaml"
        document = {"crawl": "test", "language": "en", "files": ["urls.parquet"], "allow_loopback": True}
        path.write_text(yaml.safe_dump({**document, **keys}))
        return path

    def spec(
        self,
        manifest: Path,
        port: int,
        output: str = "table",
        *,
        workers: int = 2,
        threads: int = 8,
        **parameters: object,
    ) -> DownloadSpec:
        return spec_for(
            manifest,
            limits(port, **parameters),
            self.folder / output,
            workers=workers,
            threads_per_worker=threads,
        )


def limits(port: int, **parameters: object) -> DownloadParameters:
    """Limits that hostile pages reach soon."""
    chosen = {
        "rows_per_shard": 12, "timeout_seconds": 0.5, "total_seconds": 1.0, "max_bytes": 200_000,
        "max_pixels": 1_000_000, "retries": 0, "allowed_ports": [port],
        "robots_txt": False,
    }  # fmt: skip
    return DownloadParameters.model_validate({**chosen, **parameters})


@pytest.fixture
def maker(tmp_path: Path) -> CrawlMaker:
    return CrawlMaker(tmp_path)
