"""Which job takes in a crawl: pairs go to training shards, conversations to what an instruction mix reads."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from pipelines.crawls import CrawlManifest


@dataclass(frozen=True)
class Ingestion:
    """The jobs that take in crawls."""

    pairs: dg.UnresolvedAssetJobDefinition
    conversations: dg.UnresolvedAssetJobDefinition
    """Conversations that stay in their language."""
    translated_conversations: dg.UnresolvedAssetJobDefinition
    pivot_language: str = "en"
    untranslated: tuple[str, ...] = ()
    """Crawls that stay in the pivot language."""

    @property
    def jobs(self) -> tuple[dg.UnresolvedAssetJobDefinition, ...]:
        return self.pairs, self.conversations, self.translated_conversations

    def job_of(self, manifest: CrawlManifest) -> dg.UnresolvedAssetJobDefinition:
        """The job for a crawl."""
        if manifest.kind == "pairs":
            return self.pairs
        stays = manifest.language != self.pivot_language or manifest.crawl in self.untranslated
        return self.conversations if stays else self.translated_conversations
