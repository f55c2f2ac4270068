"""The facts stage: what concerns all pairs at once first (groups of near-duplicates), then shard by shard.

A killed run goes on with the groups that it found and the shards that are not whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.facts import captions, clusters, hashes, talks
from pipelines.facts.benchmarks import Benchmarks
from pipelines.facts.spec import FactsSpec
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

FACTS = pa.schema([
    ("uid", pa.string()), ("language", pa.string()), ("language_confidence", pa.float32()),
    ("characters", pa.int32()), ("repeated", pa.float32()), ("cut", pa.bool_()),
    ("hash_group", pa.int64()), ("cosine_group", pa.int64()),
    ("benchmark_image", pa.string()), ("benchmark_text", pa.string()),
])  # fmt: skip
"""One row per raw pair or conversation, whose `characters` and the like are of all that is said. A group's number means nothing but equality; null: no near-duplicate, or not looked for."""


_GROUPS = "groups"
"""Below the work folder: what was found of all pairs at once."""


class _Rows(NamedTuple):
    """A shard as the facts need it: rows (uid, caption), their hashes (uid, perceptual_hash), and these hashes' groups."""

    raw: pa.Table
    scored: pa.Table
    of_hash: hashes.Groups
    of_cosine: hashes.Groups


def run(spec: FactsSpec, work: Work, progress: Progress) -> Outcome:
    """Write `facts-*.parquet`, one per raw shard; of conversations also `hashes-*.parquet`."""
    _check(spec)
    _restore(work)
    benchmarks = Benchmarks(spec.benchmarks, spec.parameters.decontamination)
    tally: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    for number, read in _shards(spec, work, progress):
        path = work.out / f"facts-{number}.parquet"
        if _is_whole(path):
            table = pq.read_table(path, schema=FACTS)
        else:
            table = _facts(spec, read(), benchmarks)
            _write(table, path, work)
        languages.update(language or "unknown" for language in table["language"].to_pylist())
        for name in ("hash_group", "cosine_group", "benchmark_image", "benchmark_text"):
            tally[name] += table.num_rows - table[name].null_count
        tally["cut"] += int(np.sum(table["cut"].to_numpy()))
        progress.advance()
    return Outcome(
        metrics={
            "languages": dict(languages.most_common()),
            "captions_cut": tally["cut"],
            "with_near_duplicates_by_hash": tally["hash_group"],
            "with_near_duplicates_by_embedding": tally["cosine_group"],
            "near_a_benchmark_image": tally["benchmark_image"],
            "share_words_with_a_benchmark": tally["benchmark_text"],
        },
        rows={path.name: pq.read_metadata(path).num_rows for path in sorted(work.out.iterdir())},
    )


def _restore(work: Work) -> None:
    """Bring what an earlier run found out on another machine."""
    groups = work.folder / _GROUPS
    groups.mkdir(exist_ok=True)
    if work.kept_at is not None:
        # Facts in the store are of the groups in the store: k-means elsewhere may have parted the images otherwise.
        for path in groups.iterdir():
            path.unlink()
    work.restore([groups, work.out])


def _is_whole(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True


def _write(table: pa.Table, path: Path, work: Work) -> None:
    """The file appears whole or not at all, and is kept."""
    torn = work.folder / f"{path.name}.partial"
    pq.write_table(table, torn)
    torn.replace(path)
    work.keep(path)


def _shards(spec: FactsSpec, work: Work, progress: Progress) -> Iterator[tuple[str, Callable[[], _Rows]]]:
    """The table's shards, by number, and what reads each."""
    if spec.clip_scores is None:
        files = talks.files(spec.raw_pairs)
        progress.start("facts", len(files), unit="shard")
        for number, path in files.items():
            yield number, partial(_talks, spec, work, number, path)
        return
    files, scores = _files(spec.raw_pairs, "pairs-"), _files(spec.clip_scores, "scores-")
    progress.start("grouping", 2, unit="kind")
    near = spec.parameters.near_duplicates
    of_hash = _groups(work, "hash", partial(_hash_groups, spec, scores), keep=near.hash_bits is not None)
    progress.advance()
    of_cosine = _groups(work, "cosine", partial(_cosine_groups, spec, scores), keep=near.cosine is not None)
    progress.advance()
    progress.start("facts", len(files), unit="shard")
    start = 0
    for number, path in files.items():
        end = start + _read(scores.get(number), ["perceptual_hash"]).num_rows
        groups = of_hash[start:end], of_cosine[start:end]
        yield number, partial(_pairs, path, scores.get(number), *groups)
        start = end


def _pairs(path: Path, scores: Path | None, of_hash: hashes.Groups, of_cosine: hashes.Groups) -> _Rows:
    scored = _read(scores, ["uid", "perceptual_hash"])
    return _Rows(_read(path, ["uid", "caption"]), scored, of_hash, of_cosine)


def _talks(spec: FactsSpec, work: Work, number: str, path: Path) -> _Rows:
    """A shard of conversations, whose hashes are found and written first."""
    hashed = talks.hashed(spec.raw_pairs, path)
    _write(hashed, work.out / f"{talks.HASHES}{number}.parquet", work)
    scored = hashed.filter(pc.is_valid(hashed["perceptual_hash"])).select(["uid", "perceptual_hash"])
    none = np.full(scored.num_rows, -1, dtype=np.int64)
    return _Rows(talks.read(path, ["uid", "caption"]), scored, none, none)


def _groups(work: Work, kind: str, find: Callable[[], hashes.Groups], *, keep: bool) -> hashes.Groups:
    """The groups that an earlier run found and kept, or those that are found now."""
    if not keep:
        return find()
    path = work.folder / _GROUPS / f"{kind}.npy"
    if not path.is_file():
        torn = work.folder / f"{path.name}.partial"
        with torn.open("wb") as stream:
            np.save(stream, find(), allow_pickle=False)
        torn.replace(path)
        work.keep(path)
    found: hashes.Groups = np.load(path, allow_pickle=False)
    return found


def _check(spec: FactsSpec) -> None:
    given = spec.parameters
    if unknown := sorted(set(given.languages) - captions.known_languages()):
        raise BadInput(
            f"lingua does not know the languages {', '.join(unknown)}",
            where="facts.languages",
            remedy=f"it knows {', '.join(sorted(captions.known_languages()))}",
        )
    rules = given.decontamination
    if (rules.hash_bits is not None or rules.words is not None) and not spec.benchmarks:
        raise BadInput(
            "decontamination is switched on, and no benchmark is named",
            where="facts.decontamination",
            remedy="name tables in `benchmarks`, or set hash_bits and words to null",
        )
    talks.check_scores(spec.raw_pairs, spec.clip_scores)
    if spec.clip_scores is None:
        return
    if manifest.read(spec.clip_scores).inputs.get("raw_pairs") != manifest.read(spec.raw_pairs).data_version:
        raise BadInput(
            "these scores were made from another version of the raw pairs",
            where=spec.clip_scores,
            remedy="run the score stage again",
        )
    if given.near_duplicates.cosine is not None and not manifest.files(spec.clip_scores, ".npy"):
        raise BadInput(
            "near-duplicates by embedding are switched on, and the scores keep no embeddings",
            where=spec.clip_scores,
            remedy="set `score.keep_embeddings: true`, or `facts.near_duplicates.cosine: null`",
        )


def _files(table: Path, prefix: str, suffix: str = ".parquet") -> dict[str, Path]:
    return {
        path.stem.removeprefix(prefix): path
        for path in manifest.files(table, suffix)
        if path.name.startswith(prefix)
    }


def _read(path: Path | None, columns: list[str]) -> pa.Table:
    types = {"perceptual_hash": pa.uint64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    if path is None:
        return schema.empty_table()
    try:
        return pq.read_table(path, columns=columns).cast(schema)
    except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"this parquet file is truncated, damaged or lacks a column: {error}",
            where=path,
            remedy="run the stage that made this table again",
        ) from error


def _hash_groups(spec: FactsSpec, scores: dict[str, Path]) -> hashes.Groups:
    bits = spec.parameters.near_duplicates.hash_bits
    found = [_read(path, ["perceptual_hash"])["perceptual_hash"].to_numpy() for path in scores.values()]
    joined = np.concatenate([*found, np.empty(0, dtype=np.uint64)])
    return np.full(len(joined), -1, dtype=np.int64) if bits is None else hashes.groups(joined, bits)


def _cosine_groups(spec: FactsSpec, scores: dict[str, Path]) -> hashes.Groups:
    rules = spec.parameters.near_duplicates
    if rules.cosine is None or spec.clip_scores is None:
        return np.full(sum(pq.read_metadata(path).num_rows for path in scores.values()), -1, dtype=np.int64)
    files = _files(spec.clip_scores, "images-", ".npy")
    ordered = [files[number] for number in scores]
    return clusters.groups(ordered, rules.cosine, rules.rows_per_cluster, rules.seed)


def _facts(spec: FactsSpec, rows: _Rows, benchmarks: Benchmarks) -> pa.Table:
    """The facts of one shard's raw pairs, in their order."""
    raw, scored = rows.raw, rows.scored
    texts = raw["caption"].to_pylist()
    split = [captions.words(text) for text in texts]
    told = captions.languages(texts, spec.parameters.languages)
    near = benchmarks.of_images(scored["perceptual_hash"].to_numpy())
    place = {uid: row for row, uid in enumerate(scored["uid"].to_pylist())}
    places = [place.get(uid, -1) for uid in raw["uid"].to_pylist()]

    def group(groups: Any) -> Iterator[int | None]:
        for row in places:
            yield int(groups[row]) if row >= 0 and groups[row] >= 0 else None

    columns = {
        "uid": raw["uid"],
        "language": [language for language, _ in told],
        "language_confidence": [confidence for _, confidence in told],
        "characters": [len(text) for text in texts],
        "repeated": [captions.repeated(words) for words in split],
        "cut": [captions.is_cut(text, words) for text, words in zip(texts, split, strict=True)],
        "hash_group": list(group(rows.of_hash)),
        "cosine_group": list(group(rows.of_cosine)),
        "benchmark_image": [near[row] if row >= 0 else None for row in places],
        "benchmark_text": [benchmarks.of_caption(words) for words in split],
    }
    return pa.table(columns, FACTS)
