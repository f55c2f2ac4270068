"""What another process does with a reader; imports nothing heavy, for a spawned process imports it anew."""

from __future__ import annotations

from typing import Any

from pipelines.lake.shards import ShardReader


def read_all(reader: ShardReader, queue: Any) -> None:
    queue.put([reader[place] for place in range(len(reader))])
