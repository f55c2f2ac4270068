"""The download stage: cuts the list into shards, has them downloaded, and keeps the account."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.download import worker
from pipelines.download.addresses import Policy
from pipelines.download.pool import Pool, Retried
from pipelines.download.spec import DownloadSpec
from pipelines.download.url_list import UrlList
from pipelines.download.worker import Settings, ShardRecord, ShardTask, record_path
from pipelines.download.writer import names
from pipelines.errors import BadInput
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

SILENCE_SECONDS = 120.0
"""How long a worker may report nothing, beyond the time that one URL may take."""


@dataclass
class Account:
    """What has become of the rows so far."""

    done: dict[int, ShardRecord] = field(default_factory=dict)
    reused: set[int] = field(default_factory=set)
    """Shards that an earlier, ended run had finished."""
    retried: int = 0
    ledger: Ledger = field(default_factory=lambda: Ledger(rows_in=0, kept=0))

    def add(self, record: ShardRecord, *, reused: bool = False) -> None:
        """Enter a whole shard."""
        self.done[record.shard] = record
        self.ledger += _ledger(record)
        if reused:
            self.reused.add(record.shard)


def run(spec: DownloadSpec, work: Work, progress: Progress) -> Outcome:
    """Download the crawl into `work.out`; shards that stand there whole are not made again."""
    manifest = read_manifest(spec.crawl)
    _check_inputs(spec, manifest)
    urls = UrlList(manifest)
    done, scratch = work.folder / "done", work.folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    for folder in (done, scratch / "tasks"):
        folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    account = Account()
    with _served(spec, manifest, urls) as loopback_ports:
        settings = Settings(
            parameters=spec.parameters,
            policy=Policy(frozenset(spec.parameters.allowed_ports), manifest.allow_loopback, loopback_ports),
            language=manifest.language,
            threads=spec.threads_per_worker,
            out=work.out,
            scratch=scratch,
            done=done,
        )
        _download(spec, settings, urls, account, progress)
    shutil.rmtree(scratch)
    return _outcome(work, urls, account, time.monotonic() - started)


def _check_inputs(spec: DownloadSpec, manifest: CrawlManifest) -> None:
    """The spec's inputs decide whether the table is made again, so they must be the manifest's."""
    named = [path.resolve() for path in manifest.files]
    if [path.resolve() for path in spec.urls] != named:
        raise BadInput(
            "the spec's `urls` are not the files that the crawl manifest names",
            where=spec.crawl, remedy="leave `urls` out of the spec: it is filled in",
        )  # fmt: skip
    if (spec.world is None) != (manifest.world is None):
        raise BadInput(
            "the spec's `world` is not that of the crawl manifest",
            where=spec.crawl, remedy="leave `urls` and `world` out of the spec: they are filled in",
        )  # fmt: skip


@contextlib.contextmanager
def _served(spec: DownloadSpec, manifest: CrawlManifest, urls: UrlList) -> Iterator[frozenset[int]]:
    """Run the world's web server, where there is one; yield the ports open on loopback for it."""
    if spec.world is None:
        yield frozenset()
        return
    if not manifest.allow_loopback:
        raise BadInput(
            "the manifest names a world, which is served on loopback, and does not allow loopback",
            where=spec.crawl, remedy="add `allow_loopback: true`",
        )  # fmt: skip
    parts = urlsplit(urls.first_url())
    if parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
        raise BadInput(
            "the manifest names a world, and its URLs are not of the form http://127.0.0.1:PORT/",
            where=spec.crawl, remedy="name the URL list that was made with this world",
        )  # fmt: skip
    from pipelines.world.server import serving

    with serving(spec.world, parts.port):
        yield frozenset({parts.port})


def _download(
    spec: DownloadSpec, settings: Settings, urls: UrlList, account: Account, progress: Progress
) -> None:
    pool = Pool(
        worker.main, settings.model_dump_json(), workers=spec.workers,
        silence_seconds=SILENCE_SECONDS + spec.parameters.total_seconds,
    )  # fmt: skip
    progress.start("downloading", urls.size, unit="row")
    seen: Counter[int] = Counter()
    events = pool.run(_tasks(spec, settings, urls, account, progress))
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Retried):
                account.retried += 1
                progress.say(f"shard {event.task['shard']} is downloaded again: its worker was {event.why}")
                continue
            task, message = event
            number = task["shard"]
            if message["kind"] == "done":
                record = ShardRecord.model_validate(message["record"])
                account.add(record)
                # Only now: a worker that ends before its answer arrives leaves the shard to another.
                ShardTask.model_validate(task).file(settings.scratch).unlink()
                rows = _ledger(record).rows_in
            else:
                rows = message["rows"]
            # A shard that is downloaded again counts only what is new.
            news, seen[number] = max(0, rows - seen[number]), max(rows, seen[number])
            progress.advance(news, kept=account.ledger.keep_rate)


def _tasks(
    spec: DownloadSpec, settings: Settings, urls: UrlList, account: Account, progress: Progress
) -> Iterator[dict[str, Any]]:
    """The shards that are not whole yet, each written out when it is about to be taken."""
    for shard in urls.shards(spec.parameters.rows_per_shard, settings.scratch):
        record = _finished(settings, shard.number)
        if record is not None and _ledger(record).rows_in == shard.size:
            account.add(record, reused=True)
            progress.advance(shard.size)
            continue
        task = ShardTask(shard=shard.number, normalised=shard.normalised)
        shard.write(task.file(settings.scratch))
        yield task.model_dump()


def _finished(settings: Settings, number: int) -> ShardRecord | None:
    """The record of a shard that stands whole and unchanged in `out`."""
    try:
        record = ShardRecord.model_validate_json(record_path(settings.done, number).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return record if record.matches(settings.out) else None


def _ledger(record: ShardRecord) -> Ledger:
    kept, dropped = record.counts.kept, record.counts.dropped
    return Ledger(rows_in=kept + sum(dropped.values()), kept=kept, dropped=dropped)


def _outcome(work: Work, urls: UrlList, account: Account, seconds: float) -> Outcome:
    ledger = account.ledger
    if ledger.rows_in != urls.size:
        raise AssertionError(f"the lists hold {urls.size} rows, and the shards account for {ledger.rows_in}")
    _remove_strays(work.out, account)
    fetched = sum(
        record.counts.kept for number, record in account.done.items() if number not in account.reused
    )
    metrics = {
        "shards": len(account.done),
        "shards_reused": len(account.reused),
        "shards_retried": account.retried,
        "image_bytes": sum(record.counts.image_bytes for record in account.done.values()),
        "images_per_second": round(fetched / seconds, 1),
        "success_rate": round(ledger.keep_rate, 4),
        "captions_normalised": sum(record.normalised for record in account.done.values()),
        "dropped": ledger.dropped,
    }
    rows = {names(number)[1]: record.counts.kept for number, record in account.done.items()}
    return Outcome(ledger=ledger, metrics=metrics, rows=rows)


def _remove_strays(out: Path, account: Account) -> None:
    """Only files that the account knows are published."""
    known = {name for record in account.done.values() for name in record.files}
    for path in out.iterdir():
        if path.name not in known:
            path.unlink()
