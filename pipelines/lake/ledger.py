"""The ledger: every row that enters a stage leaves it kept, or dropped for a named reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Ledger(BaseModel):
    """rows_in = kept + dropped, by reason. A stage that cannot balance it must not publish."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_in: int
    kept: int
    dropped: dict[str, int] = {}

    @property
    def balanced(self) -> bool:
        counts = [self.kept, *self.dropped.values()]
        return self.rows_in == sum(counts) and min(counts) >= 0

    @property
    def keep_rate(self) -> float:
        """Share of the rows that were kept; 1.0 for a stage that was given none."""
        return self.kept / self.rows_in if self.rows_in else 1.0

    @classmethod
    def of(cls, *, kept: int, reasons: Iterable[str]) -> Ledger:
        """The ledger of `kept` rows and of one drop reason per dropped row."""
        dropped = dict(sorted(Counter(reasons).items()))
        return cls(rows_in=kept + sum(dropped.values()), kept=kept, dropped=dropped)

    def __add__(self, other: Ledger) -> Ledger:
        dropped = Counter(self.dropped)
        dropped.update(other.dropped)
        return Ledger(
            rows_in=self.rows_in + other.rows_in,
            kept=self.kept + other.kept,
            dropped=dict(sorted(dropped.items())),
        )
