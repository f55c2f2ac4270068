"""Where data and base weights come from, handed from stage to stage in the metrics of their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.weights import is_hub_id
from pipelines.lake import manifest

LICENSES, BASE = "licenses", "base_weights"
"""Keys of a table's metrics."""
UNKNOWN = "unknown"


def licenses(tables: Iterable[Path]) -> dict[str, str]:
    """Source -> license of everything that these tables were made of; tables that say nothing add nothing."""
    found: dict[str, str] = {}
    for table in tables:
        found |= manifest.read(table).metrics.get(LICENSES, {})
    return dict(sorted(found.items()))


def license_of(raw_pairs: Path) -> str:
    """The license that a crawl's manifest gives."""
    return str(manifest.read(raw_pairs).metrics.get("license", UNKNOWN))


def base_weights(part: str, table: Path) -> dict[str, Any]:
    """What a half of the model started from: published weights by their source, or weights made here."""
    made = manifest.read(table)
    found: dict[str, Any] = {"stage": made.stage, "data_version": made.data_version}
    key = {"language_model": "language_model", "vision": "visual"}[part]
    architecture: Mapping[str, Any] = made.parameters.get("architecture") or {}
    weights = (architecture.get(key) or {}).get("weights")
    if weights is not None:
        # A folder's path says nothing to anybody else.
        source = str(weights["source"])
        found["source"] = source if is_hub_id(source) else "a local folder"
        found["sha256"] = weights.get("sha256")
    return found
