"""The job that takes in a crawl from the command line: checks its manifest and makes it a partition."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op's function.

from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.console import Console, explain_failure
from assets.partitions import PARTITION_TAG, crawl_record, register_crawl
from jobs.ingestion import Ingestion
from pipelines.errors import BadInput


class RegisterCrawl(dg.Config):
    """`ops: {register: {config: {manifest: crawls/mine.yaml}}}`"""

    manifest: str = Field(description="path of the crawl's manifest (YAML), as seen from where the run runs")


def register_crawl_job(workspace: Path, ingestion: Ingestion) -> dg.JobDefinition:
    """The job `register_crawl` for the crawls of `workspace`."""

    @dg.op(name="register", description="Check a crawl manifest, record it, and make it a partition.")
    def register(context: dg.OpExecutionContext, config: RegisterCrawl, console: Console) -> None:
        console.begin("register_crawl", 1)
        try:
            manifest = register_crawl(Path(config.manifest), workspace, context.instance)
        except BadInput as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        context.add_output_metadata(
            {
                "crawl": manifest.crawl,
                "language": manifest.language,
                "license": manifest.license,
                "files": [str(file) for file in manifest.files],
                "record": dg.MetadataValue.path(str(crawl_record(workspace, manifest.crawl))),
            }
        )
        job = ingestion.job_of(manifest).name
        console.say(
            f"registered {manifest.crawl!r} ({len(manifest.files)} files); take it in with\n"
            f"""  dagster job execute -m jobs -j {job} --tags '{{"{PARTITION_TAG}":"{manifest.crawl}"}}'"""
        )
        console.end()

    @dg.job(
        name="register_crawl",
        description="Register a crawl from its manifest. Its data is then made by the job that this one names.",
        hooks={explain_failure},
    )
    def job() -> None:
        register()

    return job
