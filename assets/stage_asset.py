"""A stage as a Dagster asset: reuse its table or launch its work, report while it runs, show what came.

Every asset of the factory is declared as a `StageAsset` and made by `stage_asset`; there is no
other place where work is started.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's function.

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from assets import metadata
from assets.checks import Check
from assets.console import OP_PREFIX, Console, duration, progress_words
from assets.partitions import CRAWLS, PARTITION_TAG, crawl_of
from assets.resources import Compute
from pipelines.errors import BadInput, Interrupted, StageFailed
from pipelines.lake import manifest as manifests
from pipelines.lake.manifest import Manifest
from pipelines.launch.cluster import Cluster
from pipelines.launch.spec import JobSpec, Report, Resources, Usage
from pipelines.stage import Stage, StageSpec, fingerprint, input_versions, why_not_reusable

OBSERVATION_SECONDS = 10.0
"""Time between two progress observations: each is a row in Dagster's history."""


@dataclass(frozen=True)
class Finished:
    """What a step that follows a table's materialization is given."""

    context: dg.AssetExecutionContext
    console: Console
    table: Path
    manifest: Manifest
    reused: bool


@dataclass(frozen=True)
class StageAsset:
    """One asset: a stage, and the spec with which it runs."""

    key: dg.AssetKey
    stage: Stage[Any]
    spec: Callable[[str], StageSpec]
    """The spec, made when the asset runs, for a crawl ("" where the asset is not partitioned).

    May raise `BadInput`.
    """
    group: str
    description: str
    upstream: Sequence[dg.AssetKey] = ()
    checks: Sequence[Check] = ()
    kinds: frozenset[str] = frozenset()
    resources: Resources = field(default_factory=Resources)
    """What it asks of a cluster."""
    served: bool = False
    """Whether its model runs behind a server: it then asks for what stages without a need of their own do."""
    by_crawl: bool = False
    """Whether there is one table per crawl."""
    shown: Callable[[Path], Mapping[str, dg.MetadataValue[Any]]] | None = None
    """What is shown of its table beside what the table's own manifest tells."""
    afterwards: Callable[[Finished], None] | None = None
    """What else is done once the table is there, on every run, also when it was reused."""

    def name_of(self, crawl: str) -> str:
        """The table's name as a person reads it: with its crawl, where it is made for one."""
        return "/".join([*self.key.path, *([crawl] if crawl else [])])


class Purse(Protocol):
    """Decides, on a cluster, whether a launch may cost what it will cost: see assets/budget.py."""

    def admit(self, context: dg.AssetExecutionContext, declared: StageAsset, cluster: Cluster) -> None: ...

    def spend(self, context: dg.AssetExecutionContext, cost: float | None) -> None: ...


def stage_asset(declared: StageAsset, purse: Purse | None = None) -> dg.AssetsDefinition:
    """The Dagster asset of a declaration; on a cluster it is launched if `purse` admits it."""

    # Not `dg.asset`, which would name the op as the asset: the job of a stage has that name.
    @dg.multi_asset(
        name=f"{OP_PREFIX}{'__'.join(declared.key.path)}",
        specs=[
            dg.AssetSpec(
                declared.key,
                deps=list(declared.upstream),
                partitions_def=CRAWLS if declared.by_crawl else None,
                group_name=declared.group,
                description=declared.description,
                kinds=set(declared.kinds),
                owners=["team:data" if declared.by_crawl else "team:models"],
                code_version=declared.stage.code_version,
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                check.name, asset=declared.key, description=check.description, blocking=check.blocking
            )
            for check in declared.checks
        ],
    )
    def materialize(
        context: dg.AssetExecutionContext, compute: Compute, console: Console
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield _materialize(declared, context, compute, console, purse)

    return materialize


def _materialize(
    declared: StageAsset, context: dg.AssetExecutionContext, compute: Compute, console: Console, purse: Purse | None,
) -> dg.MaterializeResult[Any]:  # fmt: skip
    console.begin(declared.key.to_user_string(), len(context.job_def.nodes))
    result = _reused_or_made(declared, context, compute, console, purse)
    console.end()
    return result


def _reused_or_made(
    declared: StageAsset, context: dg.AssetExecutionContext, compute: Compute, console: Console, purse: Purse | None,
) -> dg.MaterializeResult[Any]:  # fmt: skip
    try:
        crawl = crawl_of(context, job=declared.key.path[-1]) if declared.by_crawl else ""
        spec = declared.spec(crawl)
        manifest, why = why_not_reusable(declared.stage, spec)
        reused = manifest is not None
        usage: Usage | None = None
        if manifest is None:
            manifest, usage = _launch(declared, spec, why, context, compute, console, purse)
            console.say(f"made in {duration(manifest.seconds)}{_rows_words(manifest)}")
        else:
            console.say(
                f"reused: code, parameters and inputs are as on {manifest.created}{_rows_words(manifest)}"
            )
        if declared.afterwards is not None:
            declared.afterwards(Finished(context, console, spec.output, manifest, reused))
    except BadInput as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except StageFailed as error:
        raise dg.Failure(description=str(error)) from None
    except Interrupted as error:
        raise dg.Failure(
            description=f"{error}. Nothing half-made was published.", allow_retries=False
        ) from None
    return dg.MaterializeResult(
        asset_key=declared.key,
        metadata={
            **metadata.of_table(spec.output, manifest, reused=reused),
            **metadata.of_usage(usage),
            **(declared.shown(spec.output) if declared.shown is not None else {}),
        },
        data_version=dg.DataVersion(manifest.data_version),
        check_results=[
            _judged(check, declared.key, spec.output, manifest, console) for check in declared.checks
        ],
    )


def _launch(
    declared: StageAsset, spec: StageSpec, why: str,
    context: dg.AssetExecutionContext, compute: Compute, console: Console, purse: Purse | None,
) -> tuple[Manifest, Usage]:  # fmt: skip
    console.say(f"{declared.stage.name}: {why}")
    cluster = compute.cluster() if purse is not None else None
    if purse is not None and cluster is not None:
        purse.admit(context, declared, cluster)
    partition = context.run.tags.get(PARTITION_TAG) if declared.by_crawl else None
    observed = time.monotonic()
    taken: list[Report] = []

    def on_report(report: Report) -> None:
        nonlocal observed
        if report["kind"] == "usage":
            # What failed has cost as much.
            taken.append(report)
            if purse is not None:
                purse.spend(context, report["figures"].get("cost"))
            return
        console.show(report)
        if report["kind"] == "state":
            # Where it stands in the cluster is seen on the asset while it waits.
            context.log_event(_state(declared.key, partition, report))
        now = time.monotonic()
        if report["kind"] == "progress" and now - observed >= OBSERVATION_SECONDS:
            observed = now
            context.log_event(_observation(declared.key, partition, report))

    job = replace(
        job_of(declared, spec, partition or ""),
        fingerprint=fingerprint(declared.stage, spec, input_versions(spec)),
        requested_by=context.run.run_id,
    )
    try:
        usage = compute.run(job, on_report, lambda: _cancelled(context))
    except BaseException:
        # Without a materialization, it is seen nowhere else.
        for report in taken:
            console.say(report["text"])
            context.log_event(_state(declared.key, partition, report))
        raise
    return manifests.read(spec.output), usage


def job_of(declared: StageAsset, spec: StageSpec, crawl: str) -> JobSpec:
    """What makes the asset's table; nobody waits for it yet, and its inputs need not be there."""
    return JobSpec(
        "-".join([*declared.key.path, *([crawl] if crawl else [])]),
        declared.stage.module,
        spec,
        distributed=spec.processes > 1,
        imports=declared.stage.imports,
        resources=declared.resources,
        reach=declared.stage.reach(spec),
        divisible=declared.stage.divisible,
        stage=declared.stage.name,
    )


def _cancelled(context: dg.AssetExecutionContext) -> bool:
    """Whether somebody asked for the end of this run."""
    run = context.instance.get_run_by_id(context.run_id)
    return run is None or run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


def _observation(key: dg.AssetKey, partition: str | None, report: Report) -> dg.AssetObservation:
    """Progress as Dagster shows it live, its figures as curves."""
    figures = {"done": report["done"], "rate": report["rate"], **report["figures"]}
    if report["seconds_left"] is not None:
        figures["seconds left"] = report["seconds_left"]
    return dg.AssetObservation(
        asset_key=key,
        partition=partition,
        description=progress_words(report),
        metadata=dict(metadata.of_metrics(figures)),
    )


def _state(key: dg.AssetKey, partition: str | None, report: Report) -> dg.AssetObservation:
    """How the asset's job stands in the cluster: queued and why, on which nodes, started again."""
    return dg.AssetObservation(
        asset_key=key,
        partition=partition,
        description=report["text"],
        metadata=dict(metadata.of_metrics(report["figures"])),
    )


def _judged(
    check: Check, key: dg.AssetKey, table: Path, manifest: Manifest, console: Console
) -> dg.AssetCheckResult:
    verdict = check.judge(table, manifest)
    if not verdict.passed:
        console.say(
            f"check {check.name} FAILED: {verdict.words}{'; nothing downstream runs' if check.blocking else ''}"
        )
    return dg.AssetCheckResult(
        check_name=check.name,
        asset_key=key,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
        description=verdict.words,
    )


def _rows_words(manifest: Manifest) -> str:
    ledger = manifest.ledger
    if ledger is not None:
        return f" · kept {ledger.kept:,} of {ledger.rows_in:,} rows"
    return f" · {manifest.rows:,} rows" if manifest.rows else ""
