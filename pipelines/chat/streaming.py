"""An answer that grows in a thread of its own, for those who take it piece by piece and may not want its end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from pipelines.chat.conversation import Answer, Say


class Stopped(Exception):
    """The answer is not wanted any more."""


def growing(ask: Callable[[Say], Answer], stop: threading.Event) -> Iterator[str | Answer]:
    """The answer as far as it has come, again and again, and at last the `Answer`.

    Who sets `stop`, or ends the iteration, ends the answer at its next token, if it comes token by token.

    Raises:
        Stopped: `stop` was set before the end.
        Exception: what `ask` raised.
    """
    said: queue.SimpleQueue[str | Answer | Exception] = queue.SimpleQueue()

    def say(text: str) -> None:
        if stop.is_set():
            raise Stopped
        said.put(text)

    def work() -> None:
        try:
            said.put(ask(say))
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            said.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            piece = said.get()
            if isinstance(piece, Exception):
                raise piece
            yield piece
            if isinstance(piece, Answer):
                return
    finally:
        stop.set()
        thread.join()
