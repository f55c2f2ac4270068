"""The whole stage: real server, real processes, real kills."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.download.spec import STAGE, DownloadSpec, spec_for
from pipelines.errors import BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE, BadInput
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.stage import execute
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer

FAULTS = {
    "/missing.jpg": "http_404",
    "/status/500": "http_5xx",
    "/drip": "timeout",
    "/endless": "too_large",
    "/html.jpg": "not_an_image",
    "/svg": "not_an_image",
    "/empty": "not_an_image",
    "/truncated.jpg": "truncated_image",
    "/bomb": "too_many_pixels",
    "/noai": "disallowed_by_site",
    "/redirect?to=http://10.0.0.1/": "redirect_refused",
}


def urls(server: HostileServer, good: int) -> list[str | None]:
    paths = [f"/ok/{at}.jpg" for at in range(good)]
    for at, path in enumerate(FAULTS):
        paths.insert(3 * at, path)
    return [server.origin + path for path in paths]


def tables(output: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows kept and the rows dropped."""
    made = manifest.verify(output)
    parts = []
    for prefix in ("pairs", "dropped"):
        files = [output / file.path for file in made.files if Path(file.path).name.startswith(prefix)]
        parts.append(pa.concat_tables(pq.read_table(path) for path in files).to_pylist())
    return parts[0], parts[1]


def digests(output: Path) -> dict[str, str]:
    return {Path(file.path).name: file.sha256 for file in manifest.verify(output).files}


def test_every_row_is_accounted_for_and_every_image_is_where_its_row_says(
    server: HostileServer, maker: CrawlMaker
) -> None:
    rows = [
        *urls(server, 20),
        None,
        "file:///etc/passwd",
        f"{server.origin}/ok/0.jpg",
        f"{server.origin}/ok/1.jpg",
    ]
    captions: list[object] = [f"caption {at}" for at in range(len(rows))]
    captions[1] = captions[-2] = "two\nlines"
    captions[-1] = b"caf\xe9"
    assert rows[1] == rows[-2]
    spec = maker.spec(maker.crawl(rows, captions), server.server_port)
    made = execute(STAGE, spec)
    kept, dropped = tables(spec.output)
    assert made.ledger is not None
    assert made.ledger.rows_in == len(rows) == len(kept) + len(dropped)
    assert (made.ledger.kept, made.rows) == (20, 20)
    expected = Counter([*FAULTS.values(), "url_empty", "url_scheme", "duplicate_row", "caption_encoding"])
    assert Counter(row["reason"] for row in dropped) == expected == Counter(made.ledger.dropped)
    assert made.metrics["captions_normalised"] == 1
    for row in kept:
        assert row["uid"] == pair_uid(str(row["url"]), str(row["caption"]))
        tar = manifest.file(spec.output, str(row["shard"])).read_bytes()
        image = tar[row["offset"] : row["offset"] + row["length"]]
        assert hashlib.sha256(image).hexdigest() == row["image_sha256"]
        assert (row["width"], row["height"], row["language"]) == (64, 48, "en")
    assert "two lines" in {row["caption"] for row in kept}


def test_a_killed_worker_costs_its_shard_another_try_and_changes_no_byte(
    server: HostileServer, maker: CrawlMaker
) -> None:
    rows = urls(server, 24)
    rows.insert(20, server.origin + "/gate.jpg")
    crawl = maker.crawl(rows)
    server.gate_open.set()
    undisturbed = maker.spec(crawl, server.server_port, "undisturbed", workers=1, threads=2)
    assert execute(STAGE, undisturbed).metrics["shards_retried"] == 0
    server.close_gate()

    def kill() -> None:
        server.gate_reached.wait(20)
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
        server.gate_open.set()

    killer = threading.Thread(target=kill)
    killer.start()
    disturbed = maker.spec(crawl, server.server_port, "disturbed")
    made = execute(STAGE, disturbed)
    killer.join()
    assert made.metrics["shards_retried"] >= 1
    assert digests(disturbed.output) == digests(undisturbed.output)
    assert not multiprocessing.active_children()


def start(spec: DownloadSpec, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.download", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_with_the_shards_that_it_finished(
    server: HostileServer, maker: CrawlMaker, how: signal.Signals
) -> None:
    """Stopped in its third shard, with one of the two finished ones damaged meanwhile."""
    rows: list[str | None] = [f"{server.origin}/ok/{at}.jpg" for at in range(30)]
    rows.insert(29, server.origin + "/gate.jpg")
    spec = maker.spec(maker.crawl(rows), server.server_port, workers=1, total_seconds=20, timeout_seconds=20)
    server.close_gate()
    run = start(spec, maker.folder)
    assert server.gate_reached.wait(30)
    workers = children(run.pid)
    # Ctrl-C reaches the whole group, workers included; a kill reaches the parent alone.
    (os.killpg if how == signal.SIGINT else os.kill)(run.pid, how)
    words = run.communicate(timeout=20)[1].decode()
    server.gate_open.set()
    assert run.returncode == (INTERRUPTED_EXIT_CODE if how == signal.SIGINT else -how), words
    for _ in range(200):
        if not any(map(is_running, workers)):
            break
        threading.Event().wait(0.05)
    else:
        pytest.fail("a worker outlived its parent")
    assert not manifest.exists(spec.output)
    (out,) = spec.output.glob("_work/*/out")
    assert {path.name for path in out.glob("*.tar")} == {"shard-00000.tar", "shard-00001.tar"}
    damaged = out / "shard-00001.tar"
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])

    before = Counter(server.hits)
    made = execute(STAGE, spec)
    assert (made.metrics["shards"], made.metrics["shards_reused"]) == (3, 1)
    asked = Counter(server.hits) - before
    assert not any(asked[f"/ok/{at}.jpg"] for at in range(12))
    assert all(asked[f"/ok/{at}.jpg"] == 1 for at in range(12, 29))
    assert made.ledger is not None
    assert made.ledger.kept == 31
    undisturbed = maker.spec(
        spec.crawl, server.server_port, "undisturbed", total_seconds=20, timeout_seconds=20
    )
    execute(STAGE, undisturbed)
    assert digests(spec.output) == digests(undisturbed.output)


def test_equal_inputs_are_not_downloaded_again_and_a_changed_list_is(
    server: HostileServer, maker: CrawlMaker
) -> None:
    spec = maker.spec(maker.crawl([server.origin + "/ok/1.jpg"]), server.server_port, workers=1)
    first = execute(STAGE, spec)
    again = maker.spec(
        spec.crawl,
        server.server_port,
        workers=2,
        threads=3,
        connections_per_host=1,
        contact="mail@example.org",
    )
    assert execute(STAGE, again) == first
    assert server.hits["/ok/1.jpg"] == 1
    maker.crawl([server.origin + "/ok/1.jpg", server.origin + "/ok/2.jpg"])
    assert execute(STAGE, spec).rows == 2


def test_loopback_is_not_fetched_from_where_the_manifest_does_not_say_so(
    server: HostileServer, maker: CrawlMaker
) -> None:
    crawl = maker.crawl([server.origin + "/ok/1.jpg"], allow_loopback=False)
    made = execute(STAGE, maker.spec(crawl, server.server_port, workers=1))
    assert made.ledger is not None
    assert made.ledger.dropped == {"address_refused": 1}
    assert not server.hits


def test_a_shard_whose_rows_are_all_dropped_is_published_empty(
    server: HostileServer, maker: CrawlMaker
) -> None:
    rows: list[str | None] = [None] * 12 + [server.origin + "/missing.jpg"]
    spec = maker.spec(maker.crawl(rows), server.server_port, workers=1)
    made = execute(STAGE, spec)
    assert made.ledger is not None
    assert made.ledger.dropped == {"url_empty": 12, "http_404": 1}
    assert tables(spec.output)[0] == []


def test_bad_input_ends_the_command_with_its_exit_code_and_the_remedy(maker: CrawlMaker) -> None:
    crawl = maker.crawl(["http://example.org/"])
    (maker.folder / "urls.parquet").write_bytes(b"no parquet")
    run = start(maker.spec(crawl, 80), maker.folder)
    out, err = run.communicate(timeout=30)
    assert run.returncode == BAD_INPUT_EXIT_CODE
    assert b"not a whole parquet file" in err
    assert b"remedy:" in err
    assert out == b""


def test_the_spec_takes_its_files_from_the_manifest(maker: CrawlMaker) -> None:
    spec = spec_for(
        maker.crawl(["http://a/"]), maker.spec(maker.manifest(), 80).parameters, maker.folder / "table"
    )
    assert spec.files == [maker.folder.resolve() / "urls.parquet"]
    assert DownloadSpec.model_validate_json(spec.model_dump_json()) == spec
    (maker.folder / "another.parquet").write_bytes(b"")
    with pytest.raises(BadInput, match="not what the crawl manifest names"):
        execute(STAGE, spec.model_copy(update={"files": [maker.folder / "another.parquet"]}))


def test_workers_do_not_load_what_img2dataset_brings_along() -> None:
    code = (
        "import json, sys\n"
        "from pipelines.download.web import contained_downloader\n"
        "contained_downloader()\n"
        "heavy = ['torch', 'webdataset', 'albumentations', 'cv2', 'img2dataset.main']\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert json.loads(done.stdout) == []
