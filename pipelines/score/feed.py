"""What feeds the model: pairs read, verified, decoded and tokenized in threads, while the model is at work."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from models.pair_encoder import PairEncoder
from pipelines.cores import cores_of_a_rank
from pipelines.lake import manifest
from pipelines.score import pairs
from pipelines.score.pairs import Decoded, Pair, Tar
from pipelines.score.spec import ScoreSpec

CHUNKS_AHEAD = 2
"""Prepared chunks that wait for the model: with the one at work and the one being made, four are in memory."""
_LONGEST_WAIT = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A chunk of a shard, ready for the model."""

    shard: Path
    pairs: list[Pair]
    images: dict[str, Decoded]
    """Each distinct image by its sha256."""
    tokens: dict[str, list[int]]
    """Each distinct caption's ids."""
    last: bool
    """Whether the shard ends with this chunk."""


def feed(shards: Sequence[Path], encoder: PairEncoder, spec: ScoreSpec) -> Iterator[Prepared]:
    """The chunks of all shards in order, made ahead of their use.

    Raises:
        BadInput: a parquet file or a tar is missing or damaged.
    """
    return ahead(_chunks(shards, encoder, spec), CHUNKS_AHEAD)


def _chunks(shards: Sequence[Path], encoder: PairEncoder, spec: ScoreSpec) -> Iterator[Prepared]:
    with (
        ThreadPoolExecutor(spec.threads or cores_of_a_rank()) as threads,
        Tars(manifest.data_root(spec.raw_pairs)) as tars,
    ):
        for path in shards:
            left = pairs.rows(path)
            if not left:
                yield Prepared(path, [], {}, {}, last=True)
            for chunk in pairs.chunks(path, spec.chunk):
                left -= len(chunk)
                images = _decode(chunk, tars, encoder, threads)
                captions = dict.fromkeys(
                    pair.caption for pair in chunk if images[pair.image_sha256].pixels is not None
                )
                tokens = {caption: encoder.ids(caption) for caption in captions}
                yield Prepared(path, chunk, images, tokens, last=left == 0)


class Tars(contextlib.AbstractContextManager["Tars"]):
    """The tars of a table, each opened when it is first read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Tar] = {}

    def read(self, pair: Pair) -> bytes:
        """The image file of a pair, verified."""
        if pair.shard not in self._open:
            # Pairs come shard by shard: what was open before is done with.
            self.close()
            self._open[pair.shard] = Tar(self._folder / pair.shard)
        return self._open[pair.shard].read(pair)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _decode(
    chunk: Sequence[Pair], tars: Tars, encoder: PairEncoder, threads: ThreadPoolExecutor
) -> dict[str, Decoded]:
    """Each distinct image of a chunk by its sha256. The bytes are read and verified for every pair."""
    # Read here, in order: the threads only decode, so no two race to open a tar.
    waiting = {}
    for pair in chunk:
        content = tars.read(pair)
        if pair.image_sha256 not in waiting:
            waiting[pair.image_sha256] = threads.submit(pairs.decode, content, encoder.prepare)
    return {sha256: decoded.result() for sha256, decoded in waiting.items()}


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class _Ended:
    pass


class _Ahead(Generic[T]):
    """A thread that runs an iterator into a bounded queue, until it ends or is told to stop."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[T | _Failed | _Ended] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_Ended())
        except BaseException as error:  # noqa: BLE001  # raised again where the items are used
            self._put(_Failed(error))

    def _put(self, item: T | _Failed | _Ended) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_LONGEST_WAIT)
                return True
        return False

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                item = self._queue.get()
                if isinstance(item, _Ended):
                    return
                if isinstance(item, _Failed):
                    raise item.error
                yield item
        finally:
            self._stopped.set()
            self._thread.join()


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, made by a thread up to `depth` ahead; what it raises is raised here, in its place."""
    return iter(_Ahead(items, depth))
