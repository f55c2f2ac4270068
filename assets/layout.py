"""Where a recipe's tables lie and what their assets are called."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.partitions import crawl_folder
from pipelines.download.spec import NAME as RAW_PAIRS
from pipelines.errors import BadInput
from pipelines.lake import cache as lake_cache
from pipelines.lake import location
from pipelines.lake import manifest as manifests
from pipelines.remote.spec import REQUESTS_FILE

BENCHMARKS = "benchmarks"
"""Folder, and part of the keys, of the benchmarks' files."""


@dataclass(frozen=True)
class Layout:
    """The workspace of a recipe. What is made per crawl has no prefix: recipes share it."""

    workspace: Path
    recipe: str

    def key(self, *names: str) -> dg.AssetKey:
        """The key of an asset of this recipe."""
        return dg.AssetKey([self.recipe, *names])

    def table(self, *names: str) -> Path:
        """The table of an asset that is not partitioned."""
        return self.workspace.joinpath(*names)

    @property
    def cache(self) -> Path:
        """Kept translations and answers of servers: on this machine, wherever the tables lie."""
        return (
            lake_cache.root() / "answers" if location.is_remote(self.workspace) else self.workspace / "cache"
        )

    def benchmark_table(self, name: str) -> Path:
        """The files of a benchmark that the recipe names."""
        return self.table(BENCHMARKS, name)

    @property
    def requests(self) -> Path:
        """What servers were asked and answered, of translators, models that are scored and judges alike."""
        return self.cache / REQUESTS_FILE

    def crawl_table(self, crawl: str, name: str) -> Path:
        """The table of one partition."""
        return crawl_folder(self.workspace, crawl) / name

    def crawls_with(self, name: str) -> dict[str, Path]:
        """The crawls for which this table exists, sorted by name: what training is made from."""
        tables = [crawl / name for crawl in location.folders(self.workspace / "crawls")]
        return {table.parent.name: table for table in tables if manifests.exists(table)}

    def holds_conversations(self, crawl: str) -> bool:
        """Whether the crawl is one of conversations; false as long as it was not taken in."""
        table = self.crawl_table(crawl, RAW_PAIRS)
        return manifests.exists(table) and manifests.read(table).metrics.get("records") == "conversations"

    def conversation_crawls(self, languages: Collection[str]) -> dict[str, Path]:
        """The crawls of conversations in these languages, sorted by name: instruction data."""
        return {
            crawl: table
            for crawl, table in self.crawls_with(RAW_PAIRS).items()
            if self.holds_conversations(crawl) and self.language(crawl) in languages
        }

    def language(self, crawl: str) -> str:
        """The language of a crawl that was taken in."""
        return str(manifests.read(self.crawl_table(crawl, RAW_PAIRS)).metrics.get("language"))

    def made(self, crawl: str, name: str, job: str) -> Path:
        """A table of a crawl, which must be there.

        Raises:
            BadInput: it was not made yet.
        """
        table = self.crawl_table(crawl, name)
        if not manifests.exists(table):
            raise BadInput(
                f"the crawl {crawl!r} was taken in, and has no table {name} yet",
                where=table,
                remedy=f"run the job `{job}` for it, or take the crawl's folder out of the workspace",
            )
        return table

    def check_translated(self, crawl: str, pivot_language: str, untranslated: Collection[str]) -> None:
        """
        Raises:
            BadInput: the crawl's conversations are none that are translated.
        """
        if not manifests.exists(self.crawl_table(crawl, RAW_PAIRS)):
            return  # the stage says what is missing
        if not self.holds_conversations(crawl):
            why = "it holds pairs, whose captions are translated by the asset `translations`"
        elif (language := self.language(crawl)) != pivot_language:
            why = f"it is in {language}, and what is in {pivot_language} is translated"
        elif crawl in untranslated:
            why = "the recipe says so: `tuning.untranslated`"
        else:
            return
        raise BadInput(
            f"the conversations of the crawl {crawl!r} are not translated: {why}",
            where=self.crawl_table(crawl, RAW_PAIRS),
            remedy="run the job `ingest` for pairs, `ingest_conversations` for other conversations",
        )
