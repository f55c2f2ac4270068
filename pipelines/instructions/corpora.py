"""Instruction corpora in a mix: each conversation whole, in its own language and in those it was translated to.

The share of translated samples holds in each corpus that has translations: of originals and translations, those first in
the order of a seeded hash are taken, so that a larger share takes a superset of the translations that a smaller one does.
Conversations about no image are taken like the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.conversations import llava
from pipelines.conversations.table import Conversation, conversations
from pipelines.conversations.table import entries as untranslated
from pipelines.errors import BadInput
from pipelines.instructions.spec import InstructionSpec
from pipelines.lake import manifest
from pipelines.lake.buckets import hash_keys
from pipelines.lake.identity import pair_uid
from pipelines.lake.shards import ShardWriter, image_extension
from pipelines.progress import Progress

BEYOND_SHARE = "beyond_share"
"""Left out so that the share of translated samples holds; it is there for a mix of another share."""
OTHER_LANGUAGE = "other_language"
"""The mix takes the corpus in other languages: its translation alone, say."""

Turns = list[dict[str, str]]


class Counts(NamedTuple):
    """What was written of a corpus: samples by language, and how many of them are about no image."""

    languages: dict[str, int]
    without_image: int


def add(
    spec: InstructionSpec, writer: ShardWriter, progress: Progress
) -> tuple[dict[str, Counts], list[dict[str, str]]]:
    """Write every corpus of the spec; return the samples of each, and the dropped.

    Raises:
        BadInput: a translation is not of the corpus that it is named for.
    """
    counts: dict[str, Counts] = {}
    dropped: list[dict[str, str]] = []
    for name in sorted(spec.corpora):
        languages = spec.languages.get(name)
        progress.start(f"corpus {name}", unit="conversation")
        taken = _taken(spec, name)
        written: Counter[str] = Counter()
        without_image = 0
        for conversation, versions in _with_translations(spec, name):
            for language, turns in versions.items():
                uid = pair_uid(conversation.uid, language)
                wanted = languages is None or language in languages
                if not wanted or uid not in taken:
                    dropped.append(
                        {
                            "id": conversation.uid,
                            "language": language,
                            "question": turns[0]["question"],
                            "reason": BEYOND_SHARE if wanted else OTHER_LANGUAGE,
                        }
                    )
                    continue
                said = [{"language": language, **turn} for turn in turns]
                document = {"uid": uid, "source": name, "turns": said}
                image = conversation.image
                extension = "" if image is None else image_extension(image)
                writer.add(uid, image, extension, document, [language])
                written[language] += 1
                without_image += image is None
            progress.advance()
        counts[name] = Counts(dict(sorted(written.items())), without_image)
    return counts, dropped


class _All:
    def __contains__(self, uid: str) -> bool:
        return True


class _Taken:
    """The originals and translations up to a place in the order of their hashes, by the uids of samples."""

    def __init__(self, kinds: list[tuple[list[str], int]], seed: int) -> None:
        """`kinds`: uids, and how many of them are taken."""
        self._uids: set[str] = set()
        for uids, count in kinds:
            order = np.lexsort((np.array(uids, dtype=object), hash_keys(uids, seed)))[:count]
            self._uids.update(uids[place] for place in order.tolist())

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids


def _taken(spec: InstructionSpec, name: str) -> _All | _Taken:
    """Which samples of a corpus enter the mix; of one without translations, or whose languages are named, all."""
    table = spec.translations.get(name)
    if table is None or name in spec.languages:
        return _All()
    own = manifest.read(spec.corpora[name]).metrics.get("language", spec.parameters.pivot_language)
    of_corpus = untranslated(spec.corpora[name], spec.filtered.get(name))
    originals = [pair_uid(entry["id"], own) for entry in of_corpus]
    translations = [
        pair_uid(str(entry["id"]), path.stem)
        for path in _files(table)
        if path.stem != own
        for entry in llava.read(path)
    ]
    kept = share_counts(spec.parameters.target_share, len(originals), len(translations))
    return _Taken([(originals, kept[0]), (translations, kept[1])], spec.parameters.seed)


def share_counts(share: float, originals: int, translations: int) -> tuple[int, int]:
    """How many originals and translations make a mix with this share of translations: as many as there can be."""
    part = Fraction(repr(share))
    if part == 1:
        return 0, translations
    wanted = math.ceil(part * originals / (1 - part))
    if wanted <= translations:
        return originals, wanted
    return math.floor(translations * (1 - part) / part), translations


def _with_translations(spec: InstructionSpec, name: str) -> Iterator[tuple[Conversation, dict[str, Turns]]]:
    """Each conversation with its turns by language: its own first."""
    table = spec.translations.get(name)
    translated = {} if table is None else {path.stem: _Translated(path) for path in _files(table)}
    for conversation in conversations(spec.corpora[name], spec.filtered.get(name)):
        versions = {conversation.language: conversation.turns}
        for language, found in translated.items():
            if (turns := found.of(conversation.uid)) is not None:
                versions.setdefault(language, turns)
        yield conversation, versions
    for found in translated.values():
        if (uid := found.next_uid) is not None:
            raise BadInput(
                f"the translation holds the conversation {uid}, which is not in the corpus {name!r} at its place",
                where=found.path,
                remedy="translate the corpus again, as it is now filtered: the stage pipelines.conversations",
            )


def _files(table: Path) -> list[Path]:
    return [path for path in manifest.files(table, ".jsonl") if path.name != "dropped.jsonl"]


class _Translated:
    """Translated conversations, which stand in the order of the corpus; some are missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = llava.read(path)
        self._next: dict[str, Any] | None = next(self._entries, None)

    @property
    def next_uid(self) -> str | None:
        return None if self._next is None else str(self._next.get("id"))

    def of(self, uid: str) -> Turns | None:
        """The turns of the conversation, if it is the next one here."""
        if self.next_uid != uid:
            return None
        said = llava.values(self._next) or []
        self._next = next(self._entries, None)
        return [
            {"question": question, "answer": answer}
            for question, answer in zip(said[::2], said[1::2], strict=True)
        ]
