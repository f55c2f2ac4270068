"""Guarantees of each rule beside the threshold: its reason in the ledger, its switch, and clear errors."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from pipelines.errors import BadInput
from pipelines.facts.spec import STAGE as FACTS
from pipelines.facts.spec import Decontamination, FactsParameters, FactsSpec, NearDuplicates
from pipelines.filter.spec import STAGE, CaptionRules, FilterParameters, FilterSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.manifest import Manifest
from pipelines.score import run as score_run
from pipelines.stage import execute
from pipelines.takedown import keep
from pipelines.takedown.spec import Demand
from pipelines.world import benchmark
from tests import tables

HASH_GROUP, COSINE_GROUP = (2, 3, 4), (8, 9)
"""Rows whose images look alike to the perceptual hash, and those whose embeddings are alike."""
CAPTIONS = {
    5: "kleine rote Kreise liegen neben einem großen blauen Quadrat",
    6: "buy now buy now buy now buy now buy now",
    7: "two small red circles to the left of the",
    10: "x",
    11: "one big green square " * 12,
    12: "sign up for our newsletter and save", 13: "sign up for our newsletter and save",
    14: "sign up for our newsletter and save",
}  # fmt: skip
ROWS = 24


def photograph(seed: int, *, quality: int = 90, size: int = 96) -> bytes:
    """A JPEG with a perceptual hash of its own, whatever its quality and size."""
    ground = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(ground).resize((96, 96), Image.Resampling.BICUBIC).resize((size, size))
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def score_of(row: int) -> float:
    return 0.3 + 0.01 * row


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    made = []
    for row in range(ROWS):
        image = photograph(row)
        if row in HASH_GROUP:
            image = photograph(HASH_GROUP[0], quality=60 + 5 * row, size=90 + row)
        url = f"https://{'cdn.shop.example' if row % 2 else 'www.Museum.example'}:8080/{row}.jpg?a=b"
        caption = CAPTIONS.get(row, f"a photograph of the number {row} seen from far away, in summer")
        made.append(
            {"uid": pair_uid(url, caption), "url": url, "caption": caption, "language": "en", "image": image}
        )
    # One file under another caption: captions of the image that is kept are all kept.
    made[16] = made[16] | {"image": made[4]["image"]}
    return made


@pytest.fixture
def raw(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    return tables.raw_pairs(tmp_path / "raw", rows)


@pytest.fixture
def scores(tmp_path: Path, raw: Path, rows: list[dict[str, Any]]) -> Path:
    """A table of the scoring stage: true perceptual hashes, embeddings of which two are alike."""

    def write(folder: Path) -> None:
        vectors = np.random.default_rng(3).normal(size=(ROWS, 32)).astype(np.float16)
        vectors[COSINE_GROUP[1]] = vectors[COSINE_GROUP[0]] * 1.01
        for number in range(3):
            mine = list(range(number, ROWS, 3))
            hashes = [
                int(str(imagehash.phash(Image.open(io.BytesIO(rows[row]["image"])))), 16) for row in mine
            ]
            columns = {
                "uid": [rows[row]["uid"] for row in mine], "score": [score_of(row) for row in mine],
                "perceptual_hash": hashes,
            }  # fmt: skip
            pq.write_table(pa.table(columns, score_run.SCORES), folder / f"scores-{number:05d}.parquet")
            np.save(folder / f"images-{number:05d}.npy", vectors[mine])

    return belonging(tables.publish(tmp_path / "scores", write), raw)


def belonging(table: Path, raw: Path) -> Path:
    """The table, as made from these raw pairs."""
    made = manifest.read(table)
    versions = {"raw_pairs": manifest.read(raw).data_version}
    manifest.write(table, made.model_copy(update={"inputs": versions}))
    return table


@pytest.fixture
def facts(tmp_path: Path, raw: Path, scores: Path) -> Path:
    """The facts with near-duplicates of both kinds."""
    near = NearDuplicates(hash_bits=4, cosine=0.98, rows_per_cluster=100)
    parameters = FactsParameters(near_duplicates=near, languages=["en", "de", "zh"])
    spec = FactsSpec(raw_pairs=raw, clip_scores=scores, output=tmp_path / "facts", parameters=parameters)
    execute(FACTS, spec)
    return spec.output


def filtered(raw: Path, scores: Path, output: Path, **given: Any) -> tuple[Manifest, dict[str, str]]:
    """The manifest, and uid -> reason of what was dropped."""
    parameters = FilterParameters(**given.pop("parameters", {}))
    made = execute(
        STAGE, FilterSpec(raw_pairs=raw, clip_scores=scores, output=output, parameters=parameters, **given)
    )
    assert made.ledger is not None and made.ledger.balanced and made.ledger.rows_in == ROWS
    dropped = pq.read_table(manifest.file(output, "dropped.parquet")).to_pylist()
    return made, {row["uid"]: row["reason"] for row in dropped}


def places(rows: list[dict[str, Any]], dropped: dict[str, str], reason: str) -> set[int]:
    return {place for place, row in enumerate(rows) if dropped.get(row["uid"]) == reason}


def listed(path: Path, *lines: str) -> list[Path]:
    path.write_text("\n".join(lines), encoding="utf-8")
    return [path]


def test_without_facts_and_lists_nothing_but_the_score_decides(
    raw: Path, scores: Path, tmp_path: Path
) -> None:
    _, dropped = filtered(raw, scores, tmp_path / "out")
    assert not dropped


def test_urls_domains_and_images_of_blocklists_are_dropped(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    url = listed(tmp_path / "urls.txt", "# taken down", rows[0]["url"], "https://nowhere.example/x#part")
    domain = listed(tmp_path / "domains.txt", "Shop.example   # and all below", "example.org")
    sha256 = hashlib.sha256(rows[2]["image"]).hexdigest()
    phash = str(imagehash.phash(Image.open(io.BytesIO(rows[18]["image"]))))
    images = listed(tmp_path / "images.txt", sha256.upper(), phash)
    _, dropped = filtered(
        raw, scores, tmp_path / "out", blocked_urls=url, blocked_domains=domain, blocked_images=images
    )
    assert places(rows, dropped, "blocked_url") == {0}
    assert places(rows, dropped, "blocked_domain") == set(range(1, ROWS, 2))
    assert places(rows, dropped, "blocked_image") == {2, 18}
    parts = listed(tmp_path / "parts.txt", "hop.example", "example")
    _, dropped = filtered(raw, scores, tmp_path / "parts", blocked_domains=parts[:1])
    assert places(rows, dropped, "blocked_domain") == set(range(ROWS)), "`example` is above all of them"
    half = listed(tmp_path / "half.txt", "hop.example")
    assert not filtered(raw, scores, tmp_path / "half", blocked_domains=half)[1], (
        "part of a name is another name"
    )


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("blocked_domains", "https://shop.example/x"),
        ("blocked_images", "12ab"),
        ("blocked_urls", "two words"),
    ],
)
def test_a_malformed_entry_is_named_with_its_line(
    raw: Path, scores: Path, tmp_path: Path, field: str, line: str
) -> None:
    files = listed(tmp_path / "list.txt", "", line)
    with pytest.raises(BadInput) as caught:
        filtered(raw, scores, tmp_path / "out", **{field: files})
    assert caught.value.where == f"{files[0]}, line 2"


def test_a_changed_blocklist_makes_the_table_anew(raw: Path, scores: Path, tmp_path: Path) -> None:
    files = listed(tmp_path / "domains.txt", "other.example")
    before, _ = filtered(raw, scores, tmp_path / "out", blocked_domains=files)
    listed(tmp_path / "domains.txt", "shop.example")
    after, _ = filtered(raw, scores, tmp_path / "out", blocked_domains=files)
    assert after.fingerprint != before.fingerprint and after.ledger != before.ledger


@pytest.mark.parametrize("key", ["uid", "url", "image_sha256"])
def test_nsfw_scores_drop_by_any_key_and_missing_ones_as_wished(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path, key: str
) -> None:
    full = [row | {"image_sha256": hashlib.sha256(row["image"]).hexdigest()} for row in rows]
    known = {full[row][key]: 0.95 if row in (0, 20) else 0.1 for row in range(ROWS) if row not in (21, 22)}
    file = tmp_path / "nsfw.parquet"
    pq.write_table(pa.table({key: list(known), "nsfw": list(known.values())}), file)
    given = {"most_nsfw": 0.5, "without_nsfw_score": "drop"}
    _, dropped = filtered(raw, scores, tmp_path / "out", nsfw_scores=[file], parameters=given)
    assert places(rows, dropped, "nsfw") == {0, 20}
    assert places(rows, dropped, "nsfw_score_missing") == {21, 22}
    _, dropped = filtered(raw, scores, tmp_path / "keep", nsfw_scores=[file], parameters={"most_nsfw": 0.5})
    assert set(dropped.values()) == {"nsfw"}


def test_nsfw_scores_without_a_key_are_refused(raw: Path, scores: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "nsfw": [0.5]}), tmp_path / "nsfw.parquet")
    with pytest.raises(BadInput, match="one of uid, url, image_sha256"):
        filtered(
            raw,
            scores,
            tmp_path / "out",
            nsfw_scores=[tmp_path / "nsfw.parquet"],
            parameters={"most_nsfw": 0.5},
        )


def test_each_caption_rule_has_its_reason(
    raw: Path, scores: Path, facts: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    off = {"drop_hash_duplicates": False, "drop_cosine_duplicates": False}
    rules = CaptionRules(
        languages=["en"],
        fewest_characters=3,
        most_characters=120,
        most_repeated=0.4,
        drop_cut=True,
        most_pairs=2,
    )
    _, dropped = filtered(
        raw, scores, tmp_path / "out", pair_facts=facts, parameters={"captions": rules, **off}
    )
    assert places(rows, dropped, "caption_language") == {5}
    assert places(rows, dropped, "caption_repetitive") == {6}
    assert places(rows, dropped, "caption_cut") == {7}
    assert places(rows, dropped, "caption_too_short") == {10}
    assert places(rows, dropped, "caption_too_long") == {11}
    assert places(rows, dropped, "caption_common") == {12, 13, 14}
    assert not filtered(raw, scores, tmp_path / "off", pair_facts=facts, parameters=off)[1]


def test_of_images_that_look_alike_the_best_scoring_one_is_kept_with_its_captions(
    raw: Path, scores: Path, facts: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    _, dropped = filtered(raw, scores, tmp_path / "out", pair_facts=facts)
    # Row 16 has the image of row 4 and the best score of the group.
    assert places(rows, dropped, "near_duplicate_hash") == {2, 3}
    assert places(rows, dropped, "near_duplicate_cosine") == {8}
    assert len(dropped) == 3


def test_the_choice_is_among_what_the_other_rules_leave(
    raw: Path, scores: Path, facts: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    urls = listed(tmp_path / "urls.txt", rows[16]["url"], rows[4]["url"], rows[9]["url"])
    _, dropped = filtered(raw, scores, tmp_path / "out", pair_facts=facts, blocked_urls=urls)
    assert places(rows, dropped, "blocked_url") == {4, 9, 16}
    assert places(rows, dropped, "near_duplicate_hash") == {2}
    assert not places(rows, dropped, "near_duplicate_cosine"), "row 8 is the last of its group"


def test_what_a_benchmark_shows_or_asks_is_dropped_and_can_be_kept(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    def write(folder: Path) -> None:
        items = benchmark.draw_items(3, seed=1, choice=True)
        benchmark.write_mmmb(items, "en", folder / "mmmb_en.tsv")
        text = (folder / "mmmb_en.tsv").read_text(encoding="utf-8").splitlines()
        header, first = (line.split("\t") for line in text[:2])
        import base64

        # A smaller copy of an image of the crawl, and a question whose words stand in one of its captions.
        first[header.index("image")] = base64.b64encode(photograph(20, quality=70, size=80)).decode()
        first[header.index("question")] = "Is this a photograph of the number 22 seen from far away?"
        (folder / "mmmb_en.tsv").write_text(
            "\n".join([text[0], "\t".join(first), *text[2:]]) + "\n", encoding="utf-8"
        )

    rules = Decontamination(hash_bits=4, words=8)
    spec = FactsSpec(
        raw_pairs=raw, clip_scores=scores, output=tmp_path / "facts",
        benchmarks={"mmmb": tables.publish(tmp_path / "benchmark", write)},
        parameters=FactsParameters(decontamination=rules, languages=[]),
    )  # fmt: skip
    execute(FACTS, spec)
    _, dropped = filtered(raw, scores, tmp_path / "out", pair_facts=spec.output)
    assert places(rows, dropped, "benchmark_image") == {20}
    assert places(rows, dropped, "benchmark_text") == {22}
    kept = {"drop_benchmark_images": False, "drop_benchmark_texts": False}
    assert not filtered(raw, scores, tmp_path / "off", pair_facts=spec.output, parameters=kept)[1]


def test_rules_without_what_they_need_are_refused_by_name(raw: Path, scores: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"captions\.languages, captions\.drop_cut: needs `pair_facts`"):
        filtered(
            raw, scores, tmp_path / "a",
            parameters={"captions": CaptionRules(languages=["en"], drop_cut=True)},
        )  # fmt: skip
    with pytest.raises(ValidationError, match="most_nsfw: needs `nsfw_scores`"):
        filtered(raw, scores, tmp_path / "b", parameters={"most_nsfw": 0.5})
    with pytest.raises(ValidationError, match="fewest_characters 9 is more than most_characters 8"):
        CaptionRules(fewest_characters=9, most_characters=8)
    for rules, words in (
        ({"decontamination": Decontamination(words=8)}, "no benchmark is named"),
        ({"languages": ["xx"]}, "lingua does not know the languages xx"),
    ):
        spec = FactsSpec(
            raw_pairs=raw, clip_scores=scores, output=tmp_path / "facts", parameters=FactsParameters(**rules)
        )
        with pytest.raises(BadInput, match=words):
            execute(FACTS, spec)


def test_embeddings_that_were_not_kept_are_missed_by_name(raw: Path, tmp_path: Path) -> None:
    bare = belonging(tables.publish(tmp_path / "bare", lambda folder: None), raw)
    near = FactsParameters(near_duplicates=NearDuplicates(cosine=0.95))
    with pytest.raises(BadInput, match="the scores keep no embeddings"):
        execute(FACTS, FactsSpec(raw_pairs=raw, clip_scores=bare, output=tmp_path / "f", parameters=near))


def test_statistics_count_every_pair_once_per_dimension(
    raw: Path, scores: Path, facts: Path, tmp_path: Path
) -> None:
    made, _ = filtered(raw, scores, tmp_path / "out", pair_facts=facts)
    assert made.ledger is not None
    table = pq.read_table(manifest.file(tmp_path / "out", "statistics.parquet")).to_pylist()
    for dimension in ("domain", "language", "shorter side", "characters"):
        mine = [row for row in table if row["dimension"] == dimension]
        assert sum(row["rows"] for row in mine) == ROWS
        assert sum(row["kept"] for row in mine) == made.ledger.kept
    domains = {row["value"]: row["rows"] for row in table if row["dimension"] == "domain"}
    assert domains == {"cdn.shop.example": 12, "museum.example": 12}
    assert "de" in {row["value"] for row in table if row["dimension"] == "language"}


def test_the_gallery_shows_kept_borderline_and_dropped_pairs_with_their_images(
    raw: Path, scores: Path, facts: Path, tmp_path: Path
) -> None:
    filtered(raw, scores, tmp_path / "out", pair_facts=facts, parameters={"threshold": score_of(12)})
    shown = pq.read_table(manifest.file(tmp_path / "out", "gallery.parquet")).to_pylist()
    kinds = [row["kind"] for row in shown]
    assert kinds.count("kept") == 8 and kinds.count("borderline") == 8
    near = [abs(row["score"] - score_of(12)) for row in shown if row["kind"] == "borderline"]
    assert max(near) < 0.05
    assert {row["reason"] for row in shown if row["kind"] == "dropped"} >= {"score_below_threshold"}
    for row in shown:
        with Image.open(io.BytesIO(row["thumbnail"])) as image:
            assert image.format == "JPEG" and max(image.size) <= 112


def test_the_gallery_shows_nothing_that_was_to_leave(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    threshold = {"threshold": score_of(12)}
    filtered(raw, scores, tmp_path / "all", parameters=threshold)
    before = pq.read_table(manifest.file(tmp_path / "all", "gallery.parquet")).to_pylist()
    blocked = {row["url"] for row in before if row["kind"] == "borderline"}
    keep.add(tmp_path, [Demand(kind="url", value=sorted(blocked)[0])], [])
    (tmp_path / "urls.txt").write_text("\n".join(sorted(blocked)[1:]) + "\n")
    made = filtered(
        raw, scores, tmp_path / "out", takedown=tmp_path / "takedown", blocked_urls=[tmp_path / "urls.txt"],
        parameters=threshold,
    )  # fmt: skip
    assert set(made[1].values()) >= {"taken_down", "blocked_url"}
    shown = pq.read_table(manifest.file(tmp_path / "out", "gallery.parquet")).to_pylist()
    assert shown and not blocked & {row["url"] for row in shown}


def test_a_gallery_without_its_images_shows_empty_frames(raw: Path, scores: Path, tmp_path: Path) -> None:
    for path in manifest.files(raw, ".tar"):
        path.unlink()
    filtered(raw, scores, tmp_path / "out")
    shown = pq.read_table(manifest.file(tmp_path / "out", "gallery.parquet")).to_pylist()
    assert shown and all(row["thumbnail"] is None for row in shown)
