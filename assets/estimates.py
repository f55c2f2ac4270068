"""What the tables of a recipe will take before they are made, and what of their inputs is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from assets.stage_asset import StageAsset
from pipelines.errors import BadInput
from pipelines.fingerprint import input_versions
from pipelines.lake import manifest as manifests
from pipelines.launch import estimate as estimates
from pipelines.launch.estimate import Estimate
from pipelines.stage import why_not_reusable

LOOKED_BACK = 20
"""Materializations of a table that are looked at for the last one that was made in the cluster: others reused it."""


def job_seconds(instance: dg.DagsterInstance, key: dg.AssetKey, crawl: str) -> float | None:
    """What the cluster took to make a table when it last did: all attempts, and all parts before they are put together.

    Its manifest knows the last start of a training alone, and of a divided stage the putting together.
    """
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[crawl] if crawl else None)
    for record in instance.fetch_materializations(wanted, limit=LOOKED_BACK).records:
        made = record.asset_materialization
        if made is not None and "GPU-hours" in made.metadata:
            return float(str(made.metadata["job seconds"].value))
    return None


def examine(
    declared: StageAsset, crawl: str, instance: dg.DagsterInstance | None = None, *, inputs_to_come: bool
) -> tuple[Estimate, list[str]]:
    """What a table will take, and what is wrong with its inputs; those that are still to be made may be missing.

    `instance`: whose history says what the cluster took before; without it, the table's manifest.
    """
    name = declared.name_of(crawl)
    last: float | None = None
    try:
        spec = declared.spec(crawl)
        last = manifests.read(spec.output).seconds if manifests.exists(spec.output) else None
        if instance is not None and declared.resources.hours is None:
            last = job_seconds(instance, declared.key, crawl) or last
        reused = why_not_reusable(declared.stage, spec)[0] is not None
        if not reused:
            input_versions(spec)
        return estimates.estimate(name, declared.resources, last_seconds=last, reused=reused), []
    except BadInput as error:
        taken = estimates.estimate(name, declared.resources, last_seconds=last, reused=False)
        return taken, [] if inputs_to_come else [str(error)]


def examine_all(
    assets: Iterable[StageAsset], crawls: Sequence[str], instance: dg.DagsterInstance | None = None
) -> tuple[list[Estimate], list[str]]:
    """The same of several tables, given in the order of the graph; those of crawls, for each of these. What is wrong with
    several is said once."""
    taken: list[Estimate] = []
    wrong: dict[str, list[str]] = {}
    to_be_made: set[dg.AssetKey] = set()
    for declared in assets:
        for crawl in crawls if declared.by_crawl else [""]:
            inputs_to_come = not to_be_made.isdisjoint(declared.upstream)
            one, found = examine(declared, crawl, instance, inputs_to_come=inputs_to_come)
            taken.append(one)
            for words in found:
                wrong.setdefault(words, []).append(one.name)
            if one.source != "reused":
                to_be_made.add(declared.key)
    return taken, [f"{', '.join(names)}: {words}" for words, names in wrong.items()]


def requests(assets: Iterable[StageAsset], crawls: Sequence[str]) -> list[tuple[str, str]]:
    """Each table whose stage may ask a server for money, and what it would ask for, in words; nothing is asked."""
    found = []
    for declared in assets:
        if declared.stage.estimate is None:
            continue
        for crawl in crawls if declared.by_crawl else [""]:
            name = declared.name_of(crawl)
            try:
                spec = declared.spec(crawl)
                made = manifests.exists(spec.output) and why_not_reusable(declared.stage, spec)[0] is not None
                words = "made, and nothing is asked for it" if made else declared.stage.estimate(spec)
            except BadInput as error:
                words = f"not known before its inputs are there: {error.what} ({error.where})"
            found.append((name, words))
    return found
