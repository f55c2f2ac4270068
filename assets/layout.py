"""Where a recipe's tables lie and what their assets are called."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.partitions import crawl_folder
from pipelines.download.spec import NAME as RAW_PAIRS
from pipelines.lake import cache as lake_cache
from pipelines.lake import location
from pipelines.lake import manifest as manifests


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

    def crawl_table(self, crawl: str, name: str) -> Path:
        """The table of one partition."""
        return crawl_folder(self.workspace, crawl) / name

    def crawls_with(self, name: str) -> dict[str, Path]:
        """The crawls for which this table exists, sorted by name: what training is made from."""
        tables = [crawl / name for crawl in location.folders(self.workspace / "crawls")]
        return {table.parent.name: table for table in tables if manifests.exists(table)}

    def conversation_crawls(self, languages: Collection[str]) -> dict[str, Path]:
        """The crawls of conversations in these languages, sorted by name: instruction data."""
        return {
            crawl: table
            for crawl, table in self.crawls_with(RAW_PAIRS).items()
            if (metrics := manifests.read(table).metrics).get("records") == "conversations"
            and metrics.get("language") in languages
        }
