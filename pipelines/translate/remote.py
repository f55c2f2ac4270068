"""Translation by a language model behind a server: the role that CPM-Bee has in the MpM paper.

One text per request: a reply that is lost, cut off or nonsense costs that text alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from models.translator import Output
from pipelines.remote.budget import Estimate
from pipelines.remote.client import ChatClient, Failure
from pipelines.remote.spec import Conduct
from pipelines.translate.languages import name_of
from pipelines.translate.spec import RemoteTranslation

_KIND = "translation 1"
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_QUOTES = (('"', '"'), ("“", "”"), ("「", "」"), ("«", "»"), ("'", "'"))


class RemoteTranslator:
    """Asks a server for each text; what it answered before is not asked again."""

    def __init__(
        self,
        remote: RemoteTranslation,
        conduct: Conduct,
        cache: Path,
        *,
        account: str,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises:
        BadInput: the environment variable that holds the key is not set.
        """
        self._remote, self._say = remote, say
        self.kept = 0
        self._client = ChatClient(remote.server, conduct, cache, account=account)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Output]:
        """The translation of each text, in order. A text that the server refuses has a failure in its place.

        Raises:
            BadInput: the server refuses the key or the model, or the budget is used up.
            Interrupted: the server is away; what it answered is kept.
        """
        prompts = [self.prompt(text, source, target) for text in texts]
        self._say(self._client.estimate(prompts, _KIND).words())
        outputs = []
        for text, result in zip(texts, self._client.ask(prompts, _KIND), strict=True):
            if isinstance(result, Failure):
                outputs.append(Output("", finished=False, failure=f"{result.reason}: {result.detail}"))
            else:
                self.kept += result.kept
                outputs.append(Output(plain(result.text, text), finished=True))
        return outputs

    def estimate(self, texts: Sequence[str], source: str, target: str) -> Estimate:
        """What translating these would cost, without asking."""
        return self._client.estimate([self.prompt(text, source, target) for text in texts], _KIND)

    def prompt(self, text: str, source: str, target: str) -> str:
        asked = self._remote.prompt.replace("{source}", name_of(source)).replace("{target}", name_of(target))
        # Last, since the text may hold braces of its own.
        return asked.replace("{text}", text)


def plain(reply: str, source: str) -> str:
    """The translation in a reply: without thoughts in front, and without quotes that the source has not."""
    text = _THOUGHTS.sub("", reply).strip()
    for left, right in _QUOTES:
        inner = text[1:-1]
        wrapped = len(text) > 1 and text[0] == left and text[-1] == right
        if wrapped and left not in inner and right not in inner and not source.strip().startswith(left):
            return inner.strip()
    return text
