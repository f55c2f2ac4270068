"""The scoring stage: one file of scores per raw shard, which is the unit of work and of resuming.

Within a chunk of pairs an image file or caption that occurs more than once is encoded once, and texts
go through the encoder sorted by length, so that little of a batch is padding.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from models import clip as chinese_clip
from models.clip import ChineseCLIP, cosine
from models.weights import WeightsError
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.score import pairs
from pipelines.score.distribution import Distribution, Scores
from pipelines.score.pairs import Decoded, Pair, Tar
from pipelines.score.spec import ScoreSpec
from pipelines.stage import Outcome, Work

SCORES = pa.schema([("uid", pa.string()), ("score", pa.float32())])
DROPPED = pa.schema([(name, pa.string()) for name in ("uid", "reason", "detail")])
UNDECODABLE = "undecodable_image"


@dataclass(frozen=True)
class Rank:
    """This process among those that torchrun started."""

    index: int
    count: int

    @classmethod
    def of_environment(cls) -> Rank:
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def run(spec: ScoreSpec, work: Work, progress: Progress) -> Outcome:
    """Score this rank's shards; rank 0 then accounts for all of them."""
    torch.set_num_threads(spec.threads)
    rank = Rank.of_environment()
    shards = pairs.shards(spec.raw_pairs)
    total = sum(map(pairs.rows, shards))
    mine = shards[rank.index :: rank.count]
    work.out.mkdir(parents=True, exist_ok=True)
    unfinished = [path for path in mine if not _scores_path(path, work).is_file()]
    resumed = sum(pairs.rows(path) for path in mine if path not in unfinished)
    scored = 0
    started = time.monotonic()
    if unfinished:
        clip = _load(spec)
        started = time.monotonic()
        # Rank 0 speaks for all: its shards are as good a sample as any.
        progress.start("scoring", sum(map(pairs.rows, mine)), unit="pair", done=resumed)
        for path in unfinished:
            for count in _score_shard(path, clip, spec, work):
                progress.advance(count)
                scored += count
    seconds = time.monotonic() - started
    _wait_for_all(rank)
    return _outcome(spec, work, shards, total, scored * rank.count / seconds if scored else None)


def _load(spec: ScoreSpec) -> ChineseCLIP:
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "a GPU was asked for, and there is none that torch can use",
            where="device",
            remedy="set `device: auto` or `device: cpu`",
        )
    device = "cuda" if spec.device != "cpu" and torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        return chinese_clip.load(manifest.folder(spec.clip), device=device)
    except WeightsError as error:
        raise BadInput(error.message, where=error.where, remedy=error.remedy) from error


def _scores_path(shard: Path, work: Work) -> Path:
    return work.out / shard.name.replace(pairs.PREFIX, "scores-")


def _dropped_path(shard: Path, work: Work) -> Path:
    return work.out / shard.name.replace(pairs.PREFIX, "dropped-")


def _score_shard(path: Path, clip: ChineseCLIP, spec: ScoreSpec, work: Work) -> Iterator[int]:
    """Score a shard; yields the number of pairs done. Its scores file comes last: it marks the shard done."""
    uids: list[str] = []
    scores: list[Scores] = []
    dropped: list[dict[str, str]] = []
    with ThreadPoolExecutor(spec.threads) as threads, _Tars(manifest.folder(spec.raw_pairs)) as tars:
        for chunk in pairs.chunks(path, spec.chunk):
            images = _decode(chunk, tars, clip.image_size, threads)
            whole = [pair for pair in chunk if images[pair.image_sha256].pixels is not None]
            scores.append(_scores(whole, images, clip, spec))
            uids += [pair.uid for pair in whole]
            dropped += [
                {"uid": pair.uid, "reason": UNDECODABLE, "detail": images[pair.image_sha256].failure}
                for pair in chunk
                if images[pair.image_sha256].pixels is None
            ]
            yield len(chunk)
    column = np.concatenate([*scores, np.empty(0, dtype=np.float32)])
    if not np.isfinite(column).all():
        raise BadInput(
            "this model gives scores that are not finite",
            where=spec.clip,
            remedy="make or fetch the Chinese-CLIP again; its weights are damaged",
        )
    _write(_dropped_path(path, work), pa.Table.from_pylist(dropped, DROPPED), work)
    _write(_scores_path(path, work), pa.table({"uid": uids, "score": column}, SCORES), work)


class _Tars(contextlib.AbstractContextManager["_Tars"]):
    """The tars of a table, each opened when it is first read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Tar] = {}

    def read(self, pair: Pair) -> bytes:
        if pair.shard not in self._open:
            self._open[pair.shard] = Tar(self._folder / pair.shard)
        return self._open[pair.shard].read(pair)

    def __exit__(self, *_: object) -> None:
        for tar in self._open.values():
            tar.close()


def _decode(chunk: Sequence[Pair], tars: _Tars, side: int, threads: ThreadPoolExecutor) -> dict[str, Decoded]:
    """Each distinct image of a chunk by its sha256. The bytes are read and verified for every pair."""
    # Read here, in order: the threads only decode, so no two race to open a tar.
    waiting = {}
    for pair in chunk:
        content = tars.read(pair)
        if pair.image_sha256 not in waiting:
            waiting[pair.image_sha256] = threads.submit(pairs.decode, content, side)
    return {sha256: decoded.result() for sha256, decoded in waiting.items()}


@torch.inference_mode()
def _scores(chunk: Sequence[Pair], images: dict[str, Decoded], clip: ChineseCLIP, spec: ScoreSpec) -> Scores:
    """The score of each pair, in their order."""
    if not chunk:
        return np.empty(0, dtype=np.float32)
    with _autocast(clip, spec):
        image_of, image_features = _encode_images(chunk, images, clip, spec.batch)
        text_of, text_features = _encode_texts(chunk, clip, spec.batch)
    found = cosine(image_features[image_of], text_features[text_of])
    return found.cpu().numpy().astype(np.float32)


def _encode_images(
    chunk: Sequence[Pair], images: dict[str, Decoded], clip: ChineseCLIP, batch: int
) -> tuple[list[int], Tensor]:
    """Features of the distinct images, and the place of each pair's image among them."""
    place = {sha256: index for index, sha256 in enumerate(dict.fromkeys(pair.image_sha256 for pair in chunk))}
    squares = [found for sha256 in place if (found := images[sha256].pixels) is not None]
    features = [
        clip.image_features(chinese_clip.pixels(squares[start : start + batch]))
        for start in range(0, len(squares), batch)
    ]
    return [place[pair.image_sha256] for pair in chunk], torch.cat(features)


def _encode_texts(chunk: Sequence[Pair], clip: ChineseCLIP, batch: int) -> tuple[list[int], Tensor]:
    """Features of the distinct captions, shortest first, and the place of each pair's caption among them."""
    rows = {caption: clip.ids(caption) for caption in dict.fromkeys(pair.caption for pair in chunk)}
    ordered = sorted(rows, key=lambda caption: len(rows[caption]))
    features = [
        clip.text_features(clip.padded([rows[caption] for caption in ordered[start : start + batch]]))
        for start in range(0, len(ordered), batch)
    ]
    place = {caption: index for index, caption in enumerate(ordered)}
    return [place[pair.caption] for pair in chunk], torch.cat(features)


def _autocast(clip: ChineseCLIP, spec: ScoreSpec) -> contextlib.AbstractContextManager[Any]:
    if spec.parameters.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(clip.device.type, torch.bfloat16)


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
    spec: ScoreSpec, work: Work, shards: Sequence[Path], total: int, pairs_per_second: float | None
) -> Outcome:
    distribution = Distribution()
    reasons: Counter[str] = Counter()
    rows: dict[str, int] = {}
    for shard in shards:
        path, dropped = _scores_path(shard, work), _dropped_path(shard, work)
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
            "pairs_per_second": None if pairs_per_second is None else round(pairs_per_second, 1),
            "mean": distribution.mean,
            "quantiles": distribution.quantiles(),
            "clip": manifest.read(spec.clip).data_version,
        },
        rows=rows,
    )
