"""The texts of a training set in tables of shards, as conversations; read without any image, or torch."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.chat import Encoded
from models.chat_template import Chat
from pipelines.errors import BadInput
from pipelines.lake.shards import ShardReader


class ShardTexts:
    """The documents of several tables of shards, as one list."""

    def __init__(self, tables: Sequence[Path]) -> None:
        self._readers = [ShardReader(table) for table in tables]
        self._starts = np.cumsum([0, *(len(reader) for reader in self._readers)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def of_table(self, number: int) -> range:
        """The places of one table's samples in the list."""
        return range(int(self._starts[number]), int(self._starts[number + 1]))

    def table_of(self, index: int) -> int:
        """The number of the table that a sample is in."""
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def document(self, index: int) -> dict[str, Any]:
        """The texts of a sample."""
        reader, place = self._find(index)
        return reader.document(place)

    def image(self, index: int, number: int = 0) -> bytes:
        """An image file of a sample: the first, or that of a number."""
        reader, place = self._find(index)
        return reader.image(place, number)

    def images(self, index: int) -> int:
        """How many images a sample has."""
        reader, place = self._find(index)
        return reader.images(place)

    def uid(self, index: int) -> str:
        reader, place = self._find(index)
        return str(reader.uids[place])

    def _find(self, index: int) -> tuple[ShardReader, int]:
        table = self.table_of(index)
        return self._readers[table], index - int(self._starts[table])


class Texts(Protocol):
    """The conversations of a training set."""

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str] | None:
        """A sample's conversation and its group, `source/language`; without an epoch, the longest of any. None: it has none."""
        ...

    def images(self, index: int) -> int: ...


class CaptionTexts:
    """Captions as one-turn conversations: a request drawn anew each epoch, and the caption in the same language."""

    def __init__(
        self, shards: ShardTexts, chat: Chat, languages: Sequence[str], prompts: Mapping[str, Sequence[str]], seed: int
    ) -> None:  # fmt: skip
        """`languages`: of the captions that are read of each table of shards; `prompts`: requests by language.

        Raises:
            BadInput: a language has no request.
        """
        self._shards, self._chat = shards, chat
        self._languages, self._prompts, self._seed = languages, prompts, seed
        if lacking := sorted(language for language in set(languages) if not prompts.get(language)):
            raise BadInput(
                f"there is no request for a caption in: {', '.join(lacking)}", where="prompts",
                remedy="give at least one request in each language whose captions are read",
            )  # fmt: skip

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str] | None:
        document = self._shards.document(index)
        language = self._languages[self._shards.table_of(index)]
        caption, prompts = document["captions"].get(language), self._prompts[language]
        if caption is None:
            return None
        if epoch is None:
            # A request of more characters may have fewer tokens, so all are tried.
            asked = [self._chat.encode([(prompt, caption)], images=1) for prompt in prompts]
            encoded = max(asked, key=lambda one: len(one.ids))
        else:
            prompt = random.Random(f"{self._seed} {epoch} {index}").choice(prompts)
            encoded = self._chat.encode([(prompt, caption)], images=1)
        return encoded, f"{document['source']}/{language}"

    def images(self, index: int) -> int:
        return 1


class InstructionTexts:
    """Conversations about an image, several, or none, in whatever language each turn is."""

    def __init__(self, shards: ShardTexts, chat: Chat) -> None:
        self._shards, self._chat = shards, chat

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str]:
        document = self._shards.document(index)
        turns = [(turn["question"], turn["answer"]) for turn in document["turns"]]
        try:
            encoded = self._chat.encode(turns, images=self.images(index))
        except ValueError as error:
            raise BadInput(
                str(error), where=f"sample {self._shards.uid(index)}, place {index} of the training set",
                remedy="give its text one marker per image, or none: then they all come before the first question",
            ) from error  # fmt: skip
        return encoded, f"{document['source']}/{'+'.join(self.languages(index))}"

    def images(self, index: int) -> int:
        return self._shards.images(index)

    def answers_not_learned(self, index: int) -> int:
        """Answers of a conversation that are its context alone, where the template has the last one learned only."""
        return 0 if self._chat.learns_every_answer else len(self._shards.document(index)["turns"]) - 1

    def languages(self, index: int) -> list[str]:
        """The languages of a conversation's turns."""
        return sorted({turn["language"] for turn in self._shards.document(index)["turns"]})
