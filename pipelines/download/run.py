"""The download stage: cuts the source into shards, has their images fetched or read, and keeps the account."""

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

from pipelines.cores import usable_cores
from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.download import worker
from pipelines.download.addresses import Policy
from pipelines.download.earlier import earlier_table
from pipelines.download.fetched import fetched
from pipelines.download.local_images import list_members
from pipelines.download.network import explained
from pipelines.download.pool import Pool, Retried
from pipelines.download.reasons import NOT_ASKED_FOR, PASSING, Reason
from pipelines.download.shipping import Shipping
from pipelines.download.source import Shard, Source
from pipelines.download.spec import DownloadSpec, inputs
from pipelines.download.suspects import acquit_all
from pipelines.download.worker import Settings, ShardRecord, ShardTask, record_path
from pipelines.download.writer import names
from pipelines.errors import BadInput, StageFailed
from pipelines.lake import takedown
from pipelines.lake.ledger import Ledger
from pipelines.lake.takedown import Demands
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

MOST_WORKERS = 16
"""Processes where nothing says how many: with 24 threads each, strangers' servers and the line are the limit, not cores."""
SILENCE_SECONDS = 120.0
"""How long a worker may report nothing, beyond the time that one URL may take."""


@dataclass
class Account:
    """What has become of the rows so far."""

    done: dict[int, ShardRecord] = field(default_factory=dict)
    reused: set[int] = field(default_factory=set)
    """Shards that an earlier, ended run had finished."""
    retried: int = 0
    demands: Demands = field(default_factory=lambda: takedown.read(None))
    """What must not be fetched, as it was demanded when the run began."""
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
    done, scratch = work.folder / "done", work.folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    for folder in (done, scratch / "tasks"):
        folder.mkdir(parents=True, exist_ok=True)
    kept = work.restore([done, work.notes])
    progress.start("reading the source", unit="row")
    manifest = fetched(manifest, scratch / "source")
    source = Source(manifest, scratch)
    started = time.monotonic()
    account = Account(demands=takedown.read(spec.takedown))
    before = earlier_table(spec, work)
    if before is not None and before.ledger is not None:
        passing = sum(rows for reason, rows in before.ledger.dropped.items() if reason in PASSING)
        progress.say(
            f"another attempt at {passing} rows of the published table; the others are taken from it"
        )
    with _served(spec, manifest, source) as loopback_ports:
        settings = Settings(
            parameters=spec.parameters,
            policy=Policy(frozenset(spec.parameters.allowed_ports), manifest.allow_loopback, loopback_ports),
            language=manifest.language,
            kind=manifest.kind,
            threads=spec.threads_per_worker,
            source_files=manifest.files,
            image_roots=_image_roots(manifest),
            members=_listed_members(manifest, scratch),
            out=work.out,
            scratch=scratch,
            done=done,
            earlier=None if before is None else spec.output,
            at_work=work.folder / "at_work",
        )
        with Shipping(work, done, kept) as shipping:
            _download(spec, settings, source, account, progress, shipping)
    shutil.rmtree(scratch)
    shutil.rmtree(work.folder / "at_work", ignore_errors=True)
    return _outcome(work, manifest, source, account, time.monotonic() - started)


def _check_inputs(spec: DownloadSpec, manifest: CrawlManifest) -> None:
    """The spec's inputs decide whether the table is made again, so they must be the manifest's."""
    now = inputs(manifest)
    told = {name: getattr(spec, name) for name in now}
    if {**told, "world": None} != {**now, "world": None} or (told["world"] is None) != (now["world"] is None):
        raise BadInput(
            "the spec's inputs are not what the crawl manifest names, or a folder of images changed meanwhile",
            where=spec.crawl, remedy=f"leave {', '.join(now)} out of the spec: they are filled in",
        )  # fmt: skip


def _image_roots(manifest: CrawlManifest) -> list[Path]:
    if manifest.format == "folder":
        return manifest.files
    return manifest.images.files if manifest.images else []


def _listed_members(manifest: CrawlManifest, scratch: Path) -> Path | None:
    roots = _image_roots(manifest)
    if all(root.is_dir() for root in roots):
        return None
    database = scratch / "members.sqlite"
    list_members(roots, database)
    return database


@contextlib.contextmanager
def _served(spec: DownloadSpec, manifest: CrawlManifest, source: Source) -> Iterator[frozenset[int]]:
    """Run the world's web server, where there is one; yield the ports open on loopback for it."""
    if spec.world is None:
        yield frozenset()
        return
    if not manifest.allow_loopback:
        raise BadInput(
            "the manifest names a world, which is served on loopback, and does not allow loopback",
            where=spec.crawl, remedy="add `allow_loopback: true`",
        )  # fmt: skip
    parts = urlsplit(source.first_url)
    if parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
        raise BadInput(
            "the manifest names a world, and its URLs are not of the form http://127.0.0.1:PORT/",
            where=spec.crawl, remedy="name the URL list that was made with this world",
        )  # fmt: skip
    from pipelines.world.server import serving

    with serving(spec.world, parts.port):
        yield frozenset({parts.port})


def _download(
    spec: DownloadSpec,
    settings: Settings,
    source: Source,
    account: Account,
    progress: Progress,
    shipping: Shipping,
) -> None:
    pool = Pool(
        worker.main, settings.model_dump_json(), workers=spec.workers or min(usable_cores(), MOST_WORKERS),
        silence_seconds=SILENCE_SECONDS + spec.parameters.total_seconds,
    )  # fmt: skip
    progress.start("downloading", source.size, unit="row")
    seen: Counter[int] = Counter()
    events = pool.run(_tasks(spec, settings, source, account, progress, shipping))
    with _acquitting(settings.at_work), contextlib.closing(events):
        for event in events:
            if isinstance(event, Retried):
                account.retried += 1
                progress.say(f"shard {event.task['shard']} is downloaded again: its worker was {event.why}")
                continue
            task, message = event
            number = task["shard"]
            if message["kind"] == "learned":
                progress.say(f"shard {number}: {message['text']}")
                continue
            if message["kind"] == "done":
                record = ShardRecord.model_validate(message["record"])
                account.add(record)
                shipping.ship(record)
                # Only now: a worker that ends before its answer arrives leaves the shard to another.
                ShardTask.model_validate(task).file(settings.scratch).unlink()
                rows = _ledger(record).rows_in
            else:
                rows = message["rows"]
            # A shard that is downloaded again counts only what is new.
            news, seen[number] = max(0, rows - seen[number]), max(rows, seen[number])
            progress.advance(news, kept=account.ledger.keep_rate)


@contextlib.contextmanager
def _acquitting(at_work: Path) -> Iterator[None]:
    """Where the run ends while workers are at work, the rows that they have in hand are not why."""
    try:
        yield
    except StageFailed:
        raise
    except OSError as error:
        acquit_all(at_work)
        raise explained(error) from None
    except BaseException:
        acquit_all(at_work)
        raise


def _tasks(
    spec: DownloadSpec,
    settings: Settings,
    source: Source,
    account: Account,
    progress: Progress,
    shipping: Shipping,
) -> Iterator[dict[str, Any]]:
    """The shards that are not whole yet, each written out when it is about to be taken."""
    for whole in source.shards(spec.parameters.rows_per_shard):
        shard = whole.without(account.demands)
        record = _finished(settings, shard.number, shipping)
        if record is not None and _fits(record, shard):
            account.add(record, reused=True)
            shipping.ship(record)
            progress.advance(shard.size)
            continue
        task = ShardTask(shard=shard.number, normalised=shard.normalised)
        shard.write(task.file(settings.scratch))
        yield task.model_dump()


def _fits(record: ShardRecord, shard: Shard) -> bool:
    """Whether an earlier run dropped what is demanded now. Demands are only ever added: as many rows are the same rows."""
    ledger = _ledger(record)
    return ledger.rows_in == shard.size and ledger.dropped.get(Reason.TAKEN_DOWN, 0) == shard.taken_down


def _finished(settings: Settings, number: int, shipping: Shipping) -> ShardRecord | None:
    """The record of a shard that stands whole and unchanged in `out`, or went to the object store."""
    try:
        record = ShardRecord.model_validate_json(record_path(settings.done, number).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return record if shipping.has(record) or record.matches(settings.out) else None


def _ledger(record: ShardRecord) -> Ledger:
    kept, dropped = record.counts.kept, record.counts.dropped
    return Ledger(rows_in=kept + sum(dropped.values()), kept=kept, dropped=dropped)


def _outcome(
    work: Work, manifest: CrawlManifest, source: Source, account: Account, seconds: float
) -> Outcome:
    ledger = account.ledger
    if ledger.rows_in != source.size:
        raise AssertionError(
            f"the lists hold {source.size} rows, and the shards account for {ledger.rows_in}"
        )
    _remove_strays(work.out, account)
    fetched = sum(
        record.counts.kept - record.counts.carried
        for number, record in account.done.items()
        if number not in account.reused
    )
    metrics = {
        "records": manifest.kind,
        "language": manifest.language,
        "license": manifest.license,
        "shards": len(account.done),
        "shards_reused": len(account.reused),
        "shards_retried": account.retried,
        "rows_carried": sum(record.counts.carried for record in account.done.values()),
        "image_bytes": sum(record.counts.image_bytes for record in account.done.values()),
        "images_per_second": round(fetched / seconds, 1),
        "success_rate": round(
            ledger.kept / max(1, ledger.rows_in - sum(ledger.dropped.get(one, 0) for one in NOT_ASKED_FOR)), 4
        ),
        "rows_without_image": sum(record.counts.without_image for record in account.done.values()),
        "captions_normalised": sum(record.normalised for record in account.done.values()),
        "dropped": ledger.dropped,
        "takedown": {"demands": len(account.demands), "list": account.demands.digest},
    }
    rows = {names(number, manifest.kind)[1]: record.counts.kept for number, record in account.done.items()}
    return Outcome(ledger=ledger, metrics=metrics, rows=rows)


def _remove_strays(out: Path, account: Account) -> None:
    """Only files that the account knows are published."""
    known = {name for record in account.done.values() for name in record.files}
    for path in out.iterdir():
        if path.name not in known:
            path.unlink()
