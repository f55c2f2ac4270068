"""How many tokens each sample of a plan has, counted in a process per core: no image is read, and no torch is imported."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.architecture import Visual
from models.chat import IGNORED
from models.chat_folder import read_chat
from models.chat_template import Chat
from models.weights import read_json
from pipelines.cores import usable_cores
from pipelines.errors import BadInput, StageFailed
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.training.plan import Measures
from pipelines.training.spec import PlanSpec, caption_languages, caption_prompts
from pipelines.training.texts import CaptionTexts, InstructionTexts, ShardTexts, Texts

AT_ONCE = 2_000
"""Samples that a process measures before it says so."""
WORTH_PROCESSES = 50_000
"""Fewer samples are measured sooner than further processes have started."""


@dataclass
class Measured:
    """Samples in a row, the first of them at the place `start`."""

    start: int
    size: int
    tokens: np.ndarray = field(init=False)
    supervised: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    kept: list[int] = field(default_factory=list)
    """Places of those that are trained on."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Why the others are not."""
    groups: set[str] = field(default_factory=set)
    answers_not_learned: int = 0

    def __post_init__(self) -> None:
        self.tokens, self.supervised, self.images = (np.zeros(self.size, dtype=np.int64) for _ in range(3))


def measured(
    spec: PlanSpec, samples: int, held_out: set[str], progress: Progress
) -> tuple[Measures, np.ndarray, Counter[str], int]:
    """The measures of all samples, the places of those that are trained on, why others are not, and answers not learned.

    Raises:
        BadInput: a sample cannot be read.
        StageFailed: a process was killed.
    """
    whole = Measured(0, samples)
    kept: list[np.ndarray] = []
    progress.start("counting tokens", samples, unit="sample")
    for part in _parts(spec, samples, held_out):
        places = slice(part.start, part.start + part.size)
        whole.tokens[places], whole.supervised[places] = part.tokens, part.supervised
        whole.images[places] = part.images
        kept.append(np.array(part.kept, dtype=np.int64))
        whole.dropped += part.dropped
        whole.groups |= part.groups
        whole.answers_not_learned += part.answers_not_learned
        progress.advance(part.size)
    return (
        Measures(whole.tokens, whole.supervised, whole.images, tuple(sorted(whole.groups))),
        np.concatenate(kept) if kept else np.array([], dtype=np.int64),
        whole.dropped,
        whole.answers_not_learned,
    )


def _parts(spec: PlanSpec, samples: int, held_out: set[str]) -> Iterator[Measured]:
    """All samples in order, some at a time."""
    starts = range(0, samples, AT_ONCE)
    worker = Worker(spec, held_out)
    if samples < WORTH_PROCESSES:
        yield from map(worker.measure, starts)
        return
    _worker[:] = [worker]
    # Forked, so that all share the index in memory, which is large where processes are worth it.
    with ProcessPoolExecutor(usable_cores(), mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            for part in pool.map(_measure, starts):
                if isinstance(part, Measured):
                    yield part
                else:
                    what, where, remedy = part
                    raise BadInput(what, where=where, remedy=remedy)
        except BrokenProcessPool as error:
            raise StageFailed(
                "a process that counted tokens was killed, as one is where memory runs out; run it again with more"
            ) from error
        finally:
            _worker.clear()
            pool.shutdown(cancel_futures=True)


class Worker:
    """The samples' texts, opened once in a process."""

    def __init__(self, spec: PlanSpec, held_out: set[str]) -> None:
        self._spec, self._held_out = spec, held_out
        self._shards = ShardTexts(list(spec.shards.values()))
        self._texts = texts_of(spec, self._shards)

    def measure(self, start: int) -> Measured:
        """Samples from `start` on."""
        part = Measured(start, min(AT_ONCE, len(self._shards) - start))
        for index in range(start, start + part.size):
            reason = self._enter(part, index)
            if reason is not None:
                part.dropped[reason] += 1
        return part

    def _enter(self, part: Measured, index: int) -> str | None:
        """Measure one sample; why it is not trained on, or None."""
        spec, place = self._spec, index - part.start
        if self._held_out and self._shards.uid(index) in self._held_out:
            return "held_out"
        found = self._texts.text(index, None)
        if found is None:
            return "no_caption_in_the_language"
        encoded, group = found
        if spec.pack_tokens is not None and len(encoded.ids) > spec.pack_tokens:
            return "longer_than_a_pack"
        if spec.sample_tokens is not None and len(encoded.ids) > spec.sample_tokens:
            return "longer_than_allowed"
        part.tokens[place] = len(encoded.ids)
        part.supervised[place] = sum(label != IGNORED for label in encoded.labels[1:])
        part.images[place] = self._texts.images(index)
        if not part.supervised[place]:
            return "nothing_to_learn"
        part.groups.add(group)
        part.kept.append(index)
        if isinstance(self._texts, InstructionTexts):
            part.answers_not_learned += self._texts.answers_not_learned(index)
        return None


def texts_of(spec: PlanSpec, shards: ShardTexts) -> Texts:
    """The conversations that a plan is of."""
    if spec.kind == "captions":
        return CaptionTexts(shards, chat_of(spec), caption_languages(spec), caption_prompts(spec), spec.seed)
    return InstructionTexts(shards, chat_of(spec))


def chat_of(spec: PlanSpec) -> Chat:
    """The template and tokenizer that the training will use, without its weights."""
    folder = manifest.folder(spec.tokenizer)
    vision = folder if spec.vision is None else manifest.folder(spec.vision)
    described = read_json(vision / "vision_config.json")
    described.pop("language_width", None)
    return read_chat(folder, Visual(**described).encoder.tokens)


_worker: list[Worker] = []
"""What the processes were forked with."""


def _measure(start: int) -> Measured | tuple[str, str | Path, str]:
    """A part, or what is bad: such an error has more to tell than a pickled one carries."""
    try:
        return _worker[0].measure(start)
    except BadInput as error:
        return error.what, error.where, error.remedy
