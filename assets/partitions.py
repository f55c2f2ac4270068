"""Crawls as partitions: what registers one, and the early, clear error for one that is not registered."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import yaml

from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.errors import BadInput
from pipelines.lake import location
from pipelines.lake.manifest import write_atomically

CRAWLS = dg.DynamicPartitionsDefinition(name="crawls")
PARTITION_TAG = "dagster/partition"
RECORD_NAME = "crawl.yaml"

REGISTER_COMMAND = (
    "dagster job execute -m jobs -j register_crawl -c CONFIG.yaml, where CONFIG.yaml holds "
    "`ops: {register: {config: {manifest: PATH}}}`"
)


def crawl_folder(workspace: Path, crawl: str) -> Path:
    """Where the tables of a crawl lie."""
    return workspace / "crawls" / crawl


def crawl_record(workspace: Path, crawl: str) -> Path:
    """The crawl's own manifest, as it was registered."""
    return crawl_folder(workspace, crawl) / RECORD_NAME


def record_crawl(manifest: CrawlManifest, workspace: Path) -> Path:
    """Write the manifest of a crawl where its tables will lie; return the file.

    Paths within the workspace become relative, so that the workspace can be moved as a whole;
    others become absolute. Registering the same crawl again replaces the record: tables made from
    another one are then out of date, and are made anew when they are next asked for.
    """
    record = crawl_record(workspace, manifest.crawl)
    if not location.is_remote(record):
        record.parent.mkdir(parents=True, exist_ok=True)
    document = manifest.model_dump(mode="json", exclude_none=True)
    document["files"] = [_rooted(file, workspace, record.parent) for file in manifest.files]
    if manifest.images is not None:
        rooted = [_rooted(file, workspace, record.parent) for file in manifest.images.files]
        document["images"]["files"] = rooted
    if manifest.world is not None:
        document["world"] = _rooted(manifest.world, workspace, record.parent)
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode()
    if not location.is_file(record) or location.read_bytes(record) != text:
        write_atomically(record, text)
    return record


def _rooted(path: Path, workspace: Path, folder: Path) -> str:
    resolved = location.absolute(path)
    if not location.is_remote(workspace) and resolved.is_relative_to(workspace.resolve()):
        return os.path.relpath(resolved, folder.resolve())
    return str(resolved)


def register_crawl(path: Path, workspace: Path, instance: dg.DagsterInstance) -> CrawlManifest:
    """Check a crawl manifest, record it, and make it a partition.

    Raises:
        BadInput: the manifest is missing or malformed.
    """
    manifest = read_manifest(path)
    record_crawl(manifest, workspace)
    instance.add_dynamic_partitions(str(CRAWLS.name), [manifest.crawl])
    return manifest


def registered(instance: dg.DagsterInstance) -> list[str]:
    """The names of all registered crawls, sorted."""
    return sorted(instance.get_dynamic_partitions(str(CRAWLS.name)))


def crawl_of(context: dg.AssetExecutionContext, job: str) -> str:
    """The crawl that this run works on.

    Raises:
        BadInput: the run names no crawl, or one that is not registered: Dagster itself would
            say so only after the work was done.
    """
    crawl = context.run.tags.get(PARTITION_TAG)
    if crawl is None:
        raise no_crawl_named(context.instance, context.run.run_id, job)
    known = registered(context.instance)
    if crawl not in known:
        raise BadInput(
            f"the crawl {crawl!r} is not registered (registered: {', '.join(known) or 'none'})",
            where=f"tags of the run {context.run.run_id}",
            remedy=f"register it first: {REGISTER_COMMAND}",
        )
    return crawl


def no_crawl_named(instance: dg.DagsterInstance, run_id: str, job: str) -> BadInput:
    """What to tell a person who started `job` without saying for which crawl."""
    return BadInput(
        f"{job} works on one crawl, and this run names none "
        f"(registered: {', '.join(registered(instance)) or 'none'})",
        where=f"tags of the run {run_id}",
        remedy=f"""dagster job execute -m jobs -j {job} --tags '{{"{PARTITION_TAG}":"NAME"}}'""",
    )
