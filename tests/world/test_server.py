"""The world's web server: each fault as the world says it, and a download that finds them all."""

from __future__ import annotations

import http.client
import io
import socket
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.download.spec import STAGE as DOWNLOAD
from pipelines.download.spec import DownloadParameters, spec_for
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.progress import QUIET_VARIABLE
from pipelines.stage import execute
from pipelines.world.crawl import Page, read_pages
from pipelines.world.render import jpeg
from pipelines.world.server import serving
from pipelines.world.spec import STAGE as WORLD
from pipelines.world.spec import WorldParameters, WorldSpec


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET_VARIABLE, "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, for a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = tmp_path_factory.mktemp("world") / "table"
    parameters = WorldParameters(
        port=port, pages=220, crawl_rows=180, sentences=5, held_out_sentences=5, documents=5,
        reference_pairs=5, instructions=5, mmmb_items=4, open_items=5,
    )  # fmt: skip
    execute(WORLD, WorldSpec(output=output, parameters=parameters))
    return output


def port_of(world: Path) -> int:
    port: int = manifest.read(world).parameters["parameters"]["port"]
    return port


def page(world: Path, fault: str) -> Page:
    pages = read_pages(manifest.file(world, "pages.parquet"))
    return next(page for page in pages if page.fault == fault)


def get(port: int, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    return connection.getresponse()


def test_a_sound_page_is_the_image_of_its_scene(world: Path) -> None:
    sound = page(world, "none")
    with serving(world, 0) as port:
        assert get(port, sound.path).read() == jpeg(sound.scene)


def test_each_fault_is_served_as_the_web_serves_it(world: Path) -> None:
    with serving(world, 0) as port:
        assert get(port, page(world, "not_found").path).status == 404
        assert get(port, page(world, "server_error").path).status == 500
        assert get(port, "/no-such-page").status == 404
        redirect = get(port, page(world, "default_image").path)
        assert (redirect.status, redirect.headers["Location"]) == (302, "/default.jpg")
        default = get(port, "/default.jpg").read()
        assert Image.open(io.BytesIO(default)).format == "JPEG"
        html = get(port, page(world, "html_as_image").path)
        assert (html.status, html.headers["Content-Type"]) == (200, "image/jpeg")
        assert b"<!doctype html>" in html.read()
        cut = page(world, "truncated_jpeg")
        assert jpeg(cut.scene).startswith(get(port, cut.path).read())


def test_a_connection_is_kept_for_further_requests(world: Path) -> None:
    sound = page(world, "none")
    with serving(world, 0) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for _ in range(3):
            connection.request("GET", sound.path)
            assert connection.getresponse().read() == jpeg(sound.scene)


def test_a_port_in_use_is_bad_input_that_names_it(world: Path) -> None:
    with (
        serving(world, 0) as port,
        pytest.raises(BadInput, match=f"cannot use port {port}"),
        serving(world, port),
    ):
        pass


def test_the_port_is_free_again_afterwards(world: Path) -> None:
    with serving(world, 0) as port:
        get(port, page(world, "none").path).read()
    with serving(world, port) as again:
        assert again == port


def test_a_download_of_the_world_drops_just_the_rows_whose_pages_are_faulty(
    world: Path, tmp_path: Path
) -> None:
    crawl = manifest.file(world, "crawl.yaml")
    parameters = DownloadParameters(
        rows_per_shard=100,
        timeout_seconds=2.0,
        total_seconds=3.0,
        max_bytes=2_000_000,
        max_pixels=4_000_000,
        retries=1,
    )
    spec = spec_for(crawl, parameters, tmp_path / "raw", workers=2, threads_per_worker=8)
    made = execute(DOWNLOAD, spec)
    truth = pq.read_table(manifest.file(world, "truth.parquet")).to_pylist()
    faults = Counter(row["fault"] for row in truth)
    assert made.ledger is not None
    dropped = Counter(made.ledger.dropped)
    assert dropped.pop("duplicate_row") == made.ledger.rows_in - len(truth)
    assert dropped.pop("caption_control_characters") == 1
    assert dropped.pop("too_large", 0) + dropped.pop("too_many_pixels", 0) == faults["oversized"]
    assert dropped == {
        "http_404": faults["not_found"],
        "http_5xx": faults["server_error"],
        "timeout": faults["slow_drip"],
        "truncated_image": faults["truncated_jpeg"],
        "not_an_image": faults["html_as_image"],
    }
    files = [path for path in manifest.files(spec.output) if path.name.startswith("pairs-")]
    kept = {row["url"] for path in files for row in pq.read_table(path).to_pylist()}
    default = {row["url"] for row in truth if row["fault"] == "default_image"}
    assert default <= kept


def test_a_world_whose_port_is_taken_is_not_downloaded(world: Path, tmp_path: Path) -> None:
    with serving(world, port_of(world)), pytest.raises(BadInput, match="cannot use port"):
        execute(
            DOWNLOAD, spec_for(manifest.file(world, "crawl.yaml"), DownloadParameters(), tmp_path / "raw")
        )
