"""Another attempt at a published table: what it has is taken from it, and only what failed for a passing reason is fetched again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.crawls import Records
from pipelines.download.reasons import NOT_ASKED_FOR, PASSING, Failure, Reason
from pipelines.download.source import ShardRow
from pipelines.download.spec import STAGE, DownloadSpec
from pipelines.download.writer import ShardWriter, names
from pipelines.lake import manifest
from pipelines.lake.manifest import Manifest
from pipelines.lake.positioned import PositionedFile
from pipelines.stage import Work, fingerprint

_COLUMNS = ["uid", "shard", "offset", "length", "width", "height", "image_sha256"]


def earlier_table(spec: DownloadSpec, work: Work) -> Manifest | None:
    """The published table, where it was made as this one will be, but for a lower `attempt`."""
    if not manifest.exists(spec.output):
        return None
    made = manifest.read(spec.output)
    attempt = made.parameters.get("parameters", {}).get("attempt", 0)
    if attempt >= spec.parameters.attempt:
        return None
    before = spec.model_copy(update={"parameters": spec.parameters.model_copy(update={"attempt": attempt})})
    # The first holds if inputs, code and the spec are what they were; the second, if the attempt is all that changed.
    same = fingerprint(STAGE, spec, made.inputs) == work.folder.name
    return made if same and fingerprint(STAGE, before, made.inputs) == made.fingerprint else None


class EarlierShard:
    """What became of a shard's rows in the attempt before."""

    def __init__(self, table: Path, number: int, kind: Records) -> None:
        """Read the shard's rows of a published table.

        Raises:
            BadInput: the table has no such shard.
        """
        tar, kept, dropped = names(number, kind)
        rows = pq.read_table(manifest.file(table, kept), columns=_COLUMNS).to_pylist()
        self._kept: dict[str, dict[str, Any]] = {row["uid"]: row for row in rows if row["shard"] is not None}
        columns = pq.read_table(
            manifest.file(table, dropped), columns=["uid", "reason", "detail"]
        ).to_pylist()
        # A row that repeats another has its uid, and is set aside before any image is looked at.
        self._dropped = {
            row["uid"]: Failure(Reason(row["reason"]), row["detail"])
            for row in columns if row["reason"] != Reason.DUPLICATE_ROW
        }  # fmt: skip
        self._tar = PositionedFile(manifest.data_root(table) / tar)
        self.carried = 0
        """Rows kept without being fetched."""

    def settle(self, group: Sequence[ShardRow], writer: ShardWriter) -> bool:
        """Hand on what became of rows with one image; False where that is to be found out again."""
        known = self._kept.get(group[0].uid)
        if known is not None:
            image = self._tar.read(known["offset"], known["length"])
            if hashlib.sha256(image).hexdigest() != known["image_sha256"]:
                return False
            writer.keep(group, image, known["width"], known["height"])
            self.carried += len(group)
            return True
        failure = self._dropped.get(group[0].uid)
        # What was demanded then and is no longer was never asked for.
        if failure is None or failure.reason in PASSING | NOT_ASKED_FOR:
            return False
        writer.drop(group, failure)
        return True

    def close(self) -> None:
        self._tar.close()
