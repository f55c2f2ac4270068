"""Buckets: nothing is lost, equal keys meet, and buckets follow each other in the order of the keys."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.lake.buckets import BucketWriter, bucket_count, hash_keys, read_bucket

SCHEMA = pa.schema([("text", pa.string())])


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), max_size=4),
    count=st.integers(1, 7),
    seed=st.integers(-5, 5),
)
def test_rows_are_parted_by_key_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], count: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("buckets")
    with BucketWriter(folder, SCHEMA, count) as writer:
        for batch in batches:
            writer.add(pa.table({"text": pa.array(batch, pa.string())}), hash_keys(batch, seed))
    parts = [read_bucket(folder, number)["text"].to_pylist() for number in range(count)]
    assert sorted(text for part in parts for text in part) == sorted(
        text for batch in batches for text in batch
    )
    ranges = [hash_keys(part, seed) for part in parts if part]
    assert all(lower.max() < upper.min() for lower, upper in pairwise(ranges))


def test_another_seed_gives_another_order() -> None:
    texts = [str(number) for number in range(100)]
    assert hash_keys(texts, 1).argsort().tolist() != hash_keys(texts, 2).argsort().tolist()


def test_a_table_of_any_size_has_a_bounded_number_of_buckets() -> None:
    assert [bucket_count(rows, 1000) for rows in (0, 1, 1001, 10**9)] == [1, 1, 2, 256]
