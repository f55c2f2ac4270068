"""Guarantees of the single facts: perceptual hashes, embedding clusters, captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.facts import captions, clusters, hashes


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 8),
    st.lists(st.integers(0, 63), min_size=8, max_size=8, unique=True), st.integers(0, 2**32),
)  # fmt: skip
def test_no_hash_within_the_distance_is_missed_and_none_beyond_is_found(
    value: int, bits: int, places: list[int], seed: int
) -> None:
    others = np.random.default_rng(seed).integers(0, 2**64, 20, dtype=np.uint64)
    near, far = flipped(value, places[:bits]), flipped(value, places[: bits + 1])
    known = np.array([*others, near], dtype=np.uint64)
    asked = np.array([value], dtype=np.uint64)
    found = hashes.nearest(asked, known, bits)[0]
    assert found >= 0 and bin(int(known[found]) ^ value).count("1") <= bits
    if bits < 8:
        assert hashes.nearest(asked, np.array([far], dtype=np.uint64), bits)[0] == -1


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 6), st.data())
def test_groups_are_the_connected_components_of_near_hashes(
    values: list[int], bits: int, data: st.DataObject
) -> None:
    if values:
        picked = data.draw(st.lists(st.tuples(st.sampled_from(values), st.integers(0, 63)), max_size=30))
        values = values + [flipped(value, [place]) for value, place in picked]
    found = hashes.groups(np.array(values, dtype=np.uint64), bits)
    label = list(range(len(values)))
    for one in range(len(values)):
        for other in range(one):
            if bin(values[one] ^ values[other]).count("1") <= bits and label[one] != label[other]:
                old, new = label[one], label[other]
                label = [new if number == old else number for number in label]
    for one in range(len(values)):
        assert (found[one] == -1) == (label.count(label[one]) == 1)
        for other in range(one):
            same = label[one] == label[other]
            assert (found[one] == found[other] and found[one] >= 0) == same


@pytest.mark.parametrize("rows_per_cluster", [20, 100_000])
def test_embeddings_that_are_near_share_a_group_across_files_and_others_do_not(
    rows_per_cluster: int, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    distinct = generator.normal(size=(300, 32)).astype(np.float32)
    copies = distinct[:10] + 0.01 * generator.normal(size=(10, 32)).astype(np.float32)
    rows = np.concatenate([distinct, copies])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    files = []
    for number, part in enumerate(np.array_split(rows.astype(np.float16), 3)):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], part)
    found = clusters.groups(files, 0.97, rows_per_cluster, seed=0)
    assert (found[:10] >= 0).all() and (found[:10] == found[300:]).all()
    assert (found[10:300] == -1).all()
    assert len(set(found[:10])) == 10


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("two red circles to the left of a blue square", False),
        ("two red circles to the", True),
        ("A dog, a cat and", True),
        ("Photo of a dog (taken in", True),
        ("a dog…", True),
        ("两个红色圆形在左边", False),
        ("两个红色的", True),
        ("一张图片，", True),
        ("Der Hund mit", True),
        ("A", False),
        ("!!!", True),
    ],
)
def test_a_caption_that_breaks_off_is_told(text: str, cut: bool) -> None:
    assert captions.is_cut(text, captions.words(text)) is cut


def test_repetition_is_a_share_and_short_captions_have_none() -> None:
    assert captions.repeated(captions.words("buy now buy now buy now buy now")) > 0.6
    assert captions.repeated(captions.words("点击查看点击查看点击查看")) > 0.5
    assert captions.repeated(captions.words("a red circle to the left of a blue square")) == 0
    assert captions.repeated(captions.words("very very good")) == 0


def test_languages_are_told_and_digits_have_none() -> None:
    told = captions.languages(
        ["ein kleiner Hund schläft auf dem Sofa", "一只小狗睡在沙发上", "a small dog sleeps", "12345 67"],
        ["en", "zh", "de"],
    )
    assert [language for language, _ in told] == ["de", "zh", "en", None]
    assert all(confidence > 0.5 for _, confidence in told[:3])
    assert captions.languages(["whatever"], []) == [(None, 0.0)]


def test_thousands_of_copies_of_one_image_are_joined_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(900, 16)).astype(np.float16)
    rows[100:800] = rows[100]
    shuffled = generator.permutation(900)
    np.save(tmp_path / "a.npy", rows[shuffled])
    whole = clusters.groups([tmp_path / "a.npy"], 0.99, 100_000, seed=0)
    monkeypatch.setattr(clusters, "_MOST_AT_ONCE", 2_000)
    assert np.array_equal(clusters.groups([tmp_path / "a.npy"], 0.99, 100_000, seed=0), whole)
    copies = (shuffled >= 100) & (shuffled < 800)
    assert len(set(whole[copies])) == 1 and (whole[~copies] == -1).all()
