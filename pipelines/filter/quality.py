"""How well the filter did, where the truth about each pair is known: on a crawl of the procedural world."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from pipelines.download.readers.record import Record
from pipelines.download.rows import checked


@dataclass(frozen=True)
class Quality:
    """Precision: share of good pairs among the kept. Recall: share of kept pairs among the good.

    Either is None where it has no denominator.
    """

    kept: int
    good: int
    kept_and_good: int

    @property
    def precision(self) -> float | None:
        return self.kept_and_good / self.kept if self.kept else None

    @property
    def recall(self) -> float | None:
        return self.kept_and_good / self.good if self.good else None


def against_truth(kept: pa.Table, truth: pa.Table, *, given: Iterable[str] | None = None) -> Quality:
    """Hold the kept pairs (column uid) against the truth (columns url, caption, is_good).

    `given` are the uids that the filter was given: a good pair that the download lost is no fault of the
    filter. Without it, every good pair counts. A pair of the truth is known by the uid that the download
    stage gives it, which cleans captions first.
    """
    good = {
        uid_of(row["url"], row["caption"])
        for row in truth.select(["url", "caption", "is_good"]).to_pylist()
        if row["is_good"]
    }
    if given is not None:
        good &= set(given)
    uids = set(kept["uid"].to_pylist())
    return Quality(kept=len(uids), good=len(good), kept_and_good=len(uids & good))


def uid_of(url: str, caption: str) -> str:
    """The uid that the download stage gives a pair of the truth; it cleans captions first."""
    return checked(Record("truth", url.encode(), caption.encode("utf-8", "surrogatepass"))).uid
