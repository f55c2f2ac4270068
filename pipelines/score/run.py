"""The scoring stage: one file of scores per raw shard, which is the unit of work and of resuming.

Within a chunk of pairs an image file or caption that occurs more than once is encoded once, and texts
go through the encoder sorted by length, so that little of a batch is padding. Reading, decoding and
tokenizing go on in threads while the model is at work (`feed.py`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from models import pair_encoder
from models.clip import cosine
from models.pair_encoder import PairEncoder
from models.weights import WeightsError
from pipelines.cores import cores_of_a_rank
from pipelines.declaration import PART_COUNT_VARIABLE, PART_INDEX_VARIABLE
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.score import device, pairs
from pipelines.score.distribution import Distribution, Scores
from pipelines.score.feed import Prepared, feed
from pipelines.score.spec import ScoreSpec
from pipelines.stage import Outcome, Work

SCORES = pa.schema([("uid", pa.string()), ("score", pa.float32()), ("perceptual_hash", pa.uint64())])
DROPPED = pa.schema([(name, pa.string()) for name in ("uid", "reason", "detail")])
UNDECODABLE = "undecodable_image"
EMBEDDINGS = ("images", "texts")
"""Prefixes of the files of embeddings: float16 (pairs, width), row for row as the shard's file of scores."""


@dataclass(frozen=True)
class Rank:
    """This process among those that torchrun started, or that each do a part of the table."""

    index: int
    count: int
    part: bool = False
    """Whether the others are elsewhere: nobody waits for them, and a later run accounts for all."""

    @classmethod
    def of_environment(cls) -> Rank:
        if PART_COUNT_VARIABLE in os.environ:
            return cls(int(os.environ[PART_INDEX_VARIABLE]), int(os.environ[PART_COUNT_VARIABLE]), part=True)
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@dataclass
class Speed:
    """How fast this rank is, and what it waits for."""

    device: str
    peak: float | None
    pairs: int = 0
    operations: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds in which the model had nothing to do, for the next chunk was not ready."""

    def metrics(self, ranks: int) -> dict[str, Any]:
        """For a person; empty where nothing was scored. Rank 0 speaks for all: its shards are a fair sample."""
        if not self.pairs:
            return {"pairs_per_second": None}
        per_second = self.operations / self.seconds
        return {
            "pairs_per_second": round(self.pairs * ranks / self.seconds, 1),
            "device": self.device,
            "ranks": ranks,
            "teraflops_per_rank": round(per_second / 1e12, 4),
            "waiting_for_data": round(self.waited / self.seconds, 4),
        } | ({} if self.peak is None else {"mfu": round(per_second / self.peak, 4)})


@dataclass
class _Shard:
    """What has come of a shard so far."""

    uids: list[str] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    embeddings: list[tuple[Any, Any]] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)


def run(spec: ScoreSpec, work: Work, progress: Progress) -> Outcome:
    """Score this rank's shards; rank 0 then accounts for all of them."""
    torch.set_num_threads(spec.threads or cores_of_a_rank())
    rank = Rank.of_environment()
    shards = pairs.shards(spec.raw_pairs)
    total = sum(map(pairs.rows, shards))
    mine = shards[rank.index :: rank.count]
    work.out.mkdir(parents=True, exist_ok=True)
    work.restore(path for shard in mine for path in _kept(shard, spec, work))
    unfinished = [path for path in mine if not _is_whole(path, spec, work)]
    speed = Speed("", None)
    if unfinished:
        encoder = _load(spec)
        speed = Speed(device.name(encoder.device), device.peak(encoder.device))
        progress.say(f"scoring on {speed.device}")
        resumed = sum(pairs.rows(path) for path in mine if path not in unfinished)
        progress.start("scoring", sum(map(pairs.rows, mine)), unit="pair", done=resumed)
        _score(unfinished, encoder, spec, work, progress, speed)
    if rank.part:
        return Outcome()
    _wait_for_all(rank)
    if rank.index != 0:
        # Only rank 0 accounts and publishes: by now it may have moved the files away.
        return Outcome()
    return _outcome(spec, work, shards, total, speed.metrics(rank.count))


def _load(spec: ScoreSpec) -> PairEncoder:
    try:
        return pair_encoder.load(manifest.folder(spec.clip), device=device.pick(spec.device))
    except WeightsError as error:
        raise BadInput(error.message, where=error.where, remedy=error.remedy) from error


def _kept(shard: Path, spec: ScoreSpec, work: Work) -> list[Path]:
    """What a later run needs of a shard."""
    notes = [work.note(path) for path in _embeddings(shard, spec, work)]
    return [*notes, _path(shard, work, "dropped"), _path(shard, work, "scores")]


def _embeddings(shard: Path, spec: ScoreSpec, work: Work) -> list[Path]:
    prefixes = EMBEDDINGS if spec.parameters.keep_embeddings else ()
    return [_path(shard, work, prefix, ".npy") for prefix in prefixes]


def _is_whole(shard: Path, spec: ScoreSpec, work: Work) -> bool:
    """Whether an earlier run scored the shard. Its scores come last; its embeddings may be lost since."""
    return _path(shard, work, "scores").is_file() and all(map(work.has, _embeddings(shard, spec, work)))


def _path(shard: Path, work: Work, prefix: str, suffix: str = ".parquet") -> Path:
    return (work.out / shard.name.replace(pairs.PREFIX, f"{prefix}-")).with_suffix(suffix)


def _score(
    shards: Sequence[Path],
    encoder: PairEncoder,
    spec: ScoreSpec,
    work: Work,
    progress: Progress,
    speed: Speed,
) -> None:
    flops = device.Flops(encoder)
    started = asked = time.monotonic()
    current = _Shard()
    with contextlib.closing(feed(shards, encoder, spec)) as chunks:  # type: ignore[type-var]
        for chunk in chunks:
            speed.waited += time.monotonic() - asked
            _add(current, chunk, encoder, spec, flops, speed)
            if chunk.last:
                _write_shard(chunk.shard, current, spec, work)
                current = _Shard()
            progress.advance(len(chunk.pairs))
            speed.pairs += len(chunk.pairs)
            asked = time.monotonic()
    speed.seconds = time.monotonic() - started


def _add(
    shard: _Shard, chunk: Prepared, encoder: PairEncoder, spec: ScoreSpec, flops: device.Flops, speed: Speed
) -> None:
    """Score a chunk's pairs."""
    whole = []
    for pair in chunk.pairs:
        image = chunk.images[pair.image_sha256]
        if image.pixels is None:
            shard.dropped.append({"uid": pair.uid, "reason": UNDECODABLE, "detail": image.failure})
        else:
            whole.append(pair)
            shard.uids.append(pair.uid)
            shard.hashes.append(image.perceptual_hash)
    if not whole:
        return
    with torch.inference_mode(), _autocast(encoder, spec):
        place_of_image, images = _encode_images(chunk, encoder, spec.batch)
        place_of_text, texts, tokens = _encode_texts(chunk, encoder, spec.batch)
        image_rows = images[[place_of_image[pair.image_sha256] for pair in whole]]
        text_rows = texts[[place_of_text[pair.caption] for pair in whole]]
        shard.scores.append(cosine(image_rows, text_rows).cpu().numpy().astype(np.float32))
        if spec.parameters.keep_embeddings:
            shard.embeddings.append((image_rows.half().cpu().numpy(), text_rows.half().cpu().numpy()))
    speed.operations += flops.of(len(images), tokens)


def _encode_images(chunk: Prepared, encoder: PairEncoder, batch: int) -> tuple[dict[str, int], Tensor]:
    """The place of each image, by its sha256, among the features; the features of the distinct images."""
    squares = {sha256: image.pixels for sha256, image in chunk.images.items() if image.pixels is not None}
    rows = list(squares.values())
    features = [
        encoder.image_features(encoder.pixels(rows[start : start + batch]))
        for start in range(0, len(rows), batch)
    ]
    return {sha256: place for place, sha256 in enumerate(squares)}, torch.cat(features)


def _encode_texts(chunk: Prepared, encoder: PairEncoder, batch: int) -> tuple[dict[str, int], Tensor, int]:
    """The place of each caption among the features; the features, shortest first; the tokens encoded."""
    ordered = sorted(chunk.tokens, key=lambda caption: len(chunk.tokens[caption]))
    features, tokens = [], 0
    for start in range(0, len(ordered), batch):
        rows = encoder.padded([chunk.tokens[caption] for caption in ordered[start : start + batch]])
        features.append(encoder.text_features(rows))
        tokens += rows.numel()
    return {caption: place for place, caption in enumerate(ordered)}, torch.cat(features), tokens


def _write_shard(path: Path, shard: _Shard, spec: ScoreSpec, work: Work) -> None:
    """A shard's files. Its scores come last: they mark it done."""
    scores = np.concatenate([*shard.scores, np.empty(0, dtype=np.float32)])
    if not np.isfinite(scores).all():
        raise BadInput(
            "this model gives scores that are not finite",
            where=spec.clip,
            remedy="make or fetch the Chinese-CLIP again; its weights are damaged",
        )
    if spec.parameters.keep_embeddings:
        for place, prefix in enumerate(EMBEDDINGS):
            rows = [pair[place] for pair in shard.embeddings]
            found = np.concatenate(rows) if rows else np.empty((0, 0), dtype=np.float16)
            final = _path(path, work, prefix, ".npy")
            partial = work.folder / f"{final.name}.partial"
            with partial.open("wb") as stream:
                np.save(stream, found, allow_pickle=False)
            partial.replace(final)
            # Of all files the largest by far; the others are read once more for the account.
            work.finish(final)
    _write(_path(path, work, "dropped"), pa.Table.from_pylist(shard.dropped, DROPPED), work)
    columns = {"uid": shard.uids, "score": scores, "perceptual_hash": shard.hashes}
    _write(_path(path, work, "scores"), pa.table(columns, SCORES), work)
    for prefix in ("dropped", "scores"):
        work.keep(_path(path, work, prefix))


def _autocast(encoder: PairEncoder, spec: ScoreSpec) -> contextlib.AbstractContextManager[Any]:
    if spec.parameters.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(encoder.device.type, torch.bfloat16)


def _write(path: Path, table: pa.Table, work: Work) -> None:
    """The file appears whole or not at all; the part lies outside what is published."""
    partial = work.folder / f"{path.name}.partial"
    pq.write_table(table, partial)
    partial.replace(path)


def _wait_for_all(rank: Rank) -> None:
    """Rank 0 accounts for, and publishes, what all ranks wrote."""
    if rank.count == 1:
        return
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _outcome(
    spec: ScoreSpec, work: Work, shards: Sequence[Path], total: int, speed: dict[str, Any]
) -> Outcome:
    distribution = Distribution()
    reasons: Counter[str] = Counter()
    rows: dict[str, int] = {}
    for shard in shards:
        path, dropped = _path(shard, work, "scores"), _path(shard, work, "dropped")
        scores = pq.read_table(path, columns=["score"])["score"].to_numpy()
        lost = pq.read_table(dropped, columns=["reason"])["reason"].to_pylist()
        distribution.add(scores)
        reasons.update(lost)
        rows |= {path.name: len(scores), dropped.name: len(lost)}
    if distribution.size + reasons.total() != total:
        raise AssertionError(f"{total} pairs came in, and {distribution.size} + {reasons.total()} went out")
    return Outcome(
        ledger=Ledger(rows_in=total, kept=distribution.size, dropped=dict(sorted(reasons.items()))),
        metrics={
            "shards": len(shards),
            "pairs": distribution.size,
            **speed,
            "mean": distribution.mean,
            "quantiles": distribution.quantiles(),
            "clip": manifest.read(spec.clip).data_version,
        },
        rows=rows,
    )
