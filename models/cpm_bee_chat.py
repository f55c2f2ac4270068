"""CPM-Bee's tokenizer and prompt, as VisCPM-Chat uses them: a small dictionary of image, context, question and answer.

The vocabulary is a text file with a piece a line; texts are cut into the longest pieces that fit. What the
vocabulary lacks becomes `<unk>` with a number that tells unknown pieces of one prompt apart (`models.cpm_bee_layout.SUB`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.chat import IGNORED, Encoded
from models.chat_template import IMAGE_MARKER, IMAGE_PLACE, Turn
from models.cpm_bee_layout import BEGIN, END, PAD, SUB, UNKNOWN
from models.weights import VOCABULARY_FILE, WeightsError

FIRST_PIECES = ("<pad>", "<unk>", "<mask>", "<sep>", "</n>", "</_>", "<s>", "</s>", "<root>", "<ans>")
"""How the published vocabulary begins."""
_SHOWN = {"</n>": "\n", "</_>": " "}


class CpmBeeTokenizer:
    """The vocabulary, and the cutting of texts into its pieces."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """`pieces`: by id.

        Raises:
            WeightsError: they do not begin as CPM-Bee's vocabulary does.
        """
        if tuple(pieces[: len(FIRST_PIECES)]) != FIRST_PIECES:
            raise WeightsError(
                "this is not CPM-Bee's vocabulary", where=VOCABULARY_FILE,
                remedy=f"its first lines are {', '.join(FIRST_PIECES)}",
            )  # fmt: skip
        self.pieces = list(pieces)
        self._special = {piece: number for number, piece in enumerate(pieces) if _special(piece)}
        # Of a piece that stands twice, the last counts, as in the published tokenizer.
        self._ids = {_SHOWN.get(piece, piece): number for number, piece in enumerate(pieces)}
        self._longest = max(map(len, self._ids))

    @classmethod
    def from_file(cls, path: Path) -> CpmBeeTokenizer:
        """The tokenizer of a vocabulary file.

        Raises:
            WeightsError: the file is missing or no such vocabulary.
        """
        if not path.is_file():
            raise WeightsError(f"this model folder lacks {path.name}", where=path.parent)
        return cls([line for line in path.read_text(encoding="utf-8").split("\n") if line])

    def save(self, path: Path) -> None:
        """Write the vocabulary."""
        path.write_text("\n".join(self.pieces) + "\n", encoding="utf-8")

    def special(self, token: str) -> int:
        """The id of one of `FIRST_PIECES`."""
        return self._special[token]

    def encode(self, text: str, unknown: dict[str, int]) -> list[int]:
        """The ids of a text. `unknown` numbers what the vocabulary lacks, and grows by what is new.

        A text never gives a special token: `<ans>` in it is five ordinary characters.
        """
        ids: list[int] = []
        place, strange = 0, ""
        while place < len(text):
            piece = self._piece(text[place : place + self._longest])
            if piece is None:
                strange += text[place]
                place += 1
                continue
            if strange:
                ids.append(UNKNOWN + SUB * unknown.setdefault(strange, len(unknown)))
                strange = ""
            ids.append(self._ids[piece])
            place += len(piece)
        if strange:
            ids.append(UNKNOWN + SUB * unknown.setdefault(strange, len(unknown)))
        return ids

    def _piece(self, text: str) -> str | None:
        for length in range(len(text), 0, -1):
            if text[:length] in self._ids and text[:length] not in self._special:
                return text[:length]
        return None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        words = [self.pieces[number % SUB] for number in ids if 0 <= number % SUB < len(self.pieces)]
        return "".join(
            _SHOWN.get(word, word) for word in words if word in _SHOWN or word not in self._special
        )


def _special(piece: str) -> bool:
    return len(piece) > 2 and piece.startswith("<") and piece.endswith(">")


class CpmBeeChat:
    """Conversations as CPM-Bee reads them. Earlier turns are the context; the last answer alone is supervised."""

    image_id = IMAGE_PLACE
    pad_id = PAD
    end_id = END
    learns_every_answer = False

    def __init__(self, tokenizer: CpmBeeTokenizer, *, image_tokens: int) -> None:
        """`image_tokens`: visual tokens per image."""
        self.tokenizer, self.image_tokens = tokenizer, image_tokens

    def encode(self, turns: Sequence[Turn], *, images: int = 0, context: str = "") -> Encoded:
        """Ids and labels; the last answer may be None, and is then left to the model.

        Raises:
            ValueError: there is no turn.
        """
        if not turns:
            raise ValueError("a conversation has at least one turn")
        *earlier, (question, answer) = turns
        history = "".join(f"User: {_words(asked)}\nAI: {said}\n" for asked, said in earlier)
        unknown: dict[str, int] = {}
        ids = [BEGIN, self.tokenizer.special("<root>"), END]
        if images:
            ids += [*self._segment("image", unknown), BEGIN]
            ids += [self.image_id] * (self.image_tokens * images) + [END]
        for key, value in (("context", context + history), ("question", _words(question))):
            ids += self._segment(key, unknown) + self._segment(value, unknown)
        ids += [BEGIN, self.tokenizer.special("<ans>"), END, BEGIN]
        labels = [IGNORED] * len(ids)
        if answer is not None:
            reply = [*self.tokenizer.encode(answer, unknown), END]
            ids += reply
            # The head knows the vocabulary alone: what is outside it is read, not learned.
            labels += [IGNORED if token >= SUB or token == UNKNOWN else token for token in reply]
        return Encoded(ids, labels)

    def _segment(self, text: str, unknown: dict[str, int]) -> list[int]:
        return [BEGIN, *self.tokenizer.encode(text, unknown), END]

    def decode(self, ids: Sequence[int]) -> str:
        """The words of an answer."""
        return self.tokenizer.decode(ids).strip()


def _words(question: str) -> str:
    return question.replace(IMAGE_MARKER, "").strip()
