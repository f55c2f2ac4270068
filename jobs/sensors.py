"""The sensor that takes in crawls: a manifest put into a folder becomes a partition and a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.partitions import CRAWLS, record_crawl, registered
from jobs.ingestion import Ingestion
from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.errors import BadInput
from pipelines.lake.identity import file_sha256

MANIFEST_BYTES = 1_000_000
"""A crawl manifest names files; a larger one is something else."""
CRAWLS_PER_TICK = 20
"""Runs asked for at once; the rest waits for the next tick."""


@dataclass(frozen=True)
class Seen:
    """The manifests that were taken in: path in the folder -> crawl and digest. The sensor's cursor."""

    by_file: dict[str, tuple[str, str]]

    @classmethod
    def parse(cls, cursor: str | None, folder: Path) -> Seen:
        """What the cursor says of the files that are still in the folder."""
        entries = json.loads(cursor) if cursor else {}
        there = {name: entry for name, entry in entries.items() if (folder / name).is_file()}
        return cls({name: (crawl, digest) for name, (crawl, digest) in there.items()})

    def dump(self) -> str:
        return json.dumps(self.by_file)

    def owner(self, crawl: str) -> str | None:
        """The file that brought this crawl."""
        return next((file for file, (owned, _) in self.by_file.items() if owned == crawl), None)


def new_crawls_sensor(
    ingestion: Ingestion, workspace: Path, folder: Path, expected: tuple[str, ...] = ()
) -> dg.SensorDefinition:
    """Watches `folder`, and asks for the job that takes in what it finds. The crawls in `expected` come from the graph itself and only become partitions,
    so that they can be chosen in the web UI before their first run."""

    @dg.sensor(
        name="new_crawls",
        jobs=list(ingestion.jobs),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Takes in each new or changed crawl manifest: {folder}/*.yaml and {folder}/*/*.yaml.",
    )
    def new_crawls(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen = Seen.parse(context.cursor, folder)
        known = registered(context.instance)
        added = [crawl for crawl in expected if crawl not in known]
        requests: list[dg.RunRequest] = []
        problems: list[str] = []
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")]):
            name = path.relative_to(folder).as_posix()
            if len(requests) == CRAWLS_PER_TICK:
                break
            try:
                digest = _digest(path)
                if seen.by_file.get(name, ("", ""))[1] == digest:
                    continue
                manifest = _taken_in(path, name, seen, expected, workspace)
            except BadInput as error:
                problems.append(str(error))
                continue
            seen.by_file[name] = (manifest.crawl, digest)
            if manifest.crawl not in known:
                added.append(manifest.crawl)
            run_key = f"{manifest.crawl}:{digest[:16]}"
            job = ingestion.job_of(manifest)
            requests.append(dg.RunRequest(run_key=run_key, partition_key=manifest.crawl, job_name=job.name))
        for problem in problems if requests else []:  # else the reason for skipping names them
            context.log.warning(problem)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else _nothing_new(folder, seen, problems),
            dynamic_partitions_requests=[CRAWLS.build_add_request(added)] if added else [],
            cursor=seen.dump(),
        )

    return new_crawls


def _digest(path: Path) -> str:
    size = path.stat().st_size
    if size > MANIFEST_BYTES:
        raise BadInput(
            f"this is no crawl manifest: it has {size:,} bytes",
            where=path,
            remedy=f"a manifest has less than {MANIFEST_BYTES:,} bytes; move other files away",
        )
    return file_sha256(path)


def _taken_in(path: Path, name: str, seen: Seen, expected: tuple[str, ...], workspace: Path) -> CrawlManifest:
    manifest = read_manifest(path)
    owner = seen.owner(manifest.crawl)
    if manifest.crawl in expected or owner not in (None, name):
        raise BadInput(
            f"the crawl {manifest.crawl!r} already comes from {owner or 'the recipe itself'}",
            where=path,
            remedy="give this crawl another name, or remove one of the two",
        )
    record_crawl(manifest, workspace)
    return manifest


def _nothing_new(folder: Path, seen: Seen, problems: list[str]) -> str:
    if problems:
        return f"{len(problems)} manifests cannot be taken in:\n" + "\n".join(problems)
    if not folder.is_dir():
        return f"the folder {folder} does not exist; make it, and put a crawl manifest into it"
    return f"nothing new in {folder} ({len(seen.by_file)} manifests known)"
