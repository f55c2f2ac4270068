"""The conversation on a terminal, or with the lines of a pipe: answers go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.chat.conversation import Conversation
from pipelines.chat.languages import LANGUAGES, language_of, request, spoken
from pipelines.chat.pictures import open_image
from pipelines.errors import BadInput

HELP = """\
/image FILE     show one more image; the next question is about it too
/new            start anew: forget images and turns
/language CODE  the language of the answers; without a code, that of the question
/quit           end, as Ctrl-D does; Ctrl-C stops an answer
An empty line asks for a description of the image."""


class Terminal:
    """One conversation."""

    def __init__(self, conversation: Conversation, language: str | None) -> None:
        """
        Raises:
            BadInput: the language is unknown.
        """
        if language is not None:
            language_of(language)
        self.conversation, self.language = conversation, language

    def answer(self, question: str) -> None:
        """Put a question and print the answer, as it comes where it can.

        Raises:
            BadInput: the question cannot be put.
        """
        asked = request(question, self.language)
        if unknown := self.conversation.unknown_words(asked):
            note(f"the model has no word for {', '.join(map(repr, unknown))}")
        printed = ""

        def say(text: str) -> None:
            nonlocal printed
            print(text[len(printed) :], end="", flush=True)
            printed = text

        try:
            answer = self.conversation.ask(asked, say)
        except BaseException:
            if printed:
                print()
            raise
        # The last words may be others than those that were shown on the way; then all are said again.
        follows = answer.text.startswith(printed)
        print(answer.text[len(printed) :] if follows else f"\n{answer.text}", flush=True)
        if answer.cut is not None:
            note(f"cut after {answer.cut} tokens; --max-new-tokens allows more, up to the model's own limit")
        if other := spoken(answer.text, self.language):
            note(f"this answer seems to be in {other}")

    def talk(self, *, interactive: bool) -> None:
        """Take questions and commands, a line each, until there are no more.

        Raises:
            BadInput: a line cannot be followed, where nobody is there to try another.
        """
        if interactive:
            beams = self.conversation.generation.beams
            how = (
                "as it comes"
                if self.conversation.generation.streams
                else f"whole, as the best of {beams} beams"
            )
            note(
                f"{self.conversation.images or 'no'} images shown; each answer comes {how}. /help lists the commands"
            )
        for line in _lines(interactive):
            if line == "/quit":
                return
            try:
                self._follow(line)
            except BadInput as error:
                if not interactive:
                    raise
                note(f"error: {error}")
            except KeyboardInterrupt:
                if not interactive:
                    raise
                note("stopped; the question is forgotten")

    def _follow(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if command == "/image":
            self.show([Path(rest).expanduser()])
        elif command == "/new":
            self.conversation.start_anew()
            note("started anew: no images, no turns")
        elif command == "/language":
            if rest:
                language_of(rest)
            self.language = rest or None
        elif command == "/help":
            note(HELP)
        elif command.startswith("/"):
            raise BadInput(f"there is no command {command}", where="the line", remedy="/help lists them")
        elif line:
            self.answer(line)
        elif self.conversation.new_images:
            self.answer(LANGUAGES[self.language or "en"].describe)

    def show(self, files: Iterable[Path]) -> None:
        """Show the model images.

        Raises:
            BadInput: a file is no image that can be used.
        """
        for file in files:
            self.conversation.show(open_image(file))


def _lines(interactive: bool) -> Iterator[str]:
    """Lines without the spaces around them; ends with the input, or with Ctrl-C where none is being answered."""
    if not interactive:
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401  # gives `input` its history and its editing

    while True:
        try:
            yield input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return


def note(text: str) -> None:
    """Something that is no answer."""
    print(text, file=sys.stderr, flush=True)
