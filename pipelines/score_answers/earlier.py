"""The headlines of earlier runs, which the manifest of each table of scores hands on to the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.lake import manifest

RUNS_KEPT = 20


def earlier_runs(table: Path) -> list[dict[str, Any]]:
    """The headlines of the last runs, the table's own as the last of them, so that a check can compare.

    A run with reviews that failed is left out: another one took its place.
    """
    if not manifest.exists(table):
        return []
    made = manifest.read(table)
    earlier: list[dict[str, Any]] = made.metrics.get("runs", [])
    if made.incomplete:
        return earlier
    this = {"created": made.created, **flat(made.metrics.get("models", {}))}
    return [*earlier, this][-RUNS_KEPT:]


def flat(models: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Headlines by model and name in one, such as "blend, mmmb circular zh"."""
    return {
        f"{model}, {name}": value for model, of_model in models.items() for name, value in of_model.items()
    }
