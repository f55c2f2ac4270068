"""Instruction corpora in a mix: each conversation whole, in its own language and in those it was translated to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.conversations import llava
from pipelines.conversations.table import Conversation, conversations
from pipelines.errors import BadInput
from pipelines.instructions.spec import InstructionSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.shards import ShardWriter, image_extension
from pipelines.progress import Progress

NO_IMAGE = "no_image"
"""Tuning is on images: a conversation about none stays in its crawl's table, and out of the mix."""

Turns = list[dict[str, str]]


def add(
    spec: InstructionSpec, writer: ShardWriter, progress: Progress
) -> tuple[dict[str, dict[str, int]], list[dict[str, str]]]:
    """Write every corpus of the spec; return the samples by corpus and language, and the dropped.

    Raises:
        BadInput: a translation is not of the corpus that it is named for.
    """
    counts: dict[str, dict[str, int]] = {}
    dropped: list[dict[str, str]] = []
    for name in sorted(spec.corpora):
        progress.start(f"corpus {name}", unit="conversation")
        written: Counter[str] = Counter()
        for conversation, versions in _with_translations(spec, name):
            for language, turns in versions.items():
                uid = pair_uid(conversation.uid, language)
                if conversation.image is None:
                    question = turns[0]["question"]
                    dropped.append(
                        {
                            "id": conversation.uid,
                            "language": language,
                            "question": question,
                            "reason": NO_IMAGE,
                        }
                    )
                    continue
                said = [{"language": language, **turn} for turn in turns]
                document = {"uid": uid, "source": name, "turns": said}
                writer.add(uid, conversation.image, image_extension(conversation.image), document, [language])
                written[language] += 1
            progress.advance()
        counts[name] = dict(sorted(written.items()))
    return counts, dropped


def _with_translations(spec: InstructionSpec, name: str) -> Iterator[tuple[Conversation, dict[str, Turns]]]:
    """Each conversation with its turns by language: its own first."""
    table = spec.translations.get(name)
    translated = {} if table is None else {path.stem: _Translated(path) for path in _files(table)}
    for conversation in conversations(spec.corpora[name]):
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
                remedy="translate the corpus again: name its table in `corpus` of the stage pipelines.conversations",
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
