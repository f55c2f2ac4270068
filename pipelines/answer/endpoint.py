"""A vision-language model behind an OpenAI-compatible server: images go with the prompt, answers are kept."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.answer.answerer import NoAnswer, Said
from pipelines.benchmarks.pictures import as_sent, opened
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput, Interrupted
from pipelines.progress import Progress
from pipelines.remote.client import ChatClient, Failure, Reply
from pipelines.remote.spec import Conduct, Server
from pipelines.remote.transport import CONTENT_FILTER

KIND = "benchmark answer 1"
SEPARATOR = "\n"
"""Between an image's digest and the words, in what goes to the client as the prompt."""


class ImageClient(ChatClient):
    """The shared client, with an image before the words."""

    images: Mapping[str, Asked] = {}

    def body(self, prompt: str) -> dict[str, Any]:
        digest, _, words = prompt.partition(SEPARATOR)
        body = super().body(words)
        kind, content = as_sent(self.images[digest])
        url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        body["messages"][-1]["content"] = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": words},
        ]
        return body


class Endpoint:
    """Asks a server. What it does not answer is no answer: the question is refused for good, or asked in the next run."""

    def __init__(self, server: Server, conduct: Conduct, cache: Path, *, account: str) -> None:
        self.server = server.model_copy(update={"temperature": 0.0})
        self.client = ImageClient(self.server, conduct, cache, account=account)

    def see(self, images: Mapping[str, Asked], progress: Progress) -> None:
        """Every image is decoded once before any question is paid for."""
        progress.start("images", len(images), unit="image")
        for one in images.values():
            opened(one)
            progress.advance()
        self.client.images = images

    def answer(self, asked: Sequence[Asked], max_new_tokens: int) -> Iterator[Said]:
        """
        Raises:
            BadInput: the server refuses the key, the model, or request after request, or the budget is used up.
            Interrupted: the server is away for too long. What it answered before is yielded first.
        """
        prompts = [one.image_sha256 + SEPARATOR + one.prompt for one in asked]
        self.client.server = self.server.model_copy(update={"max_tokens": max_new_tokens})
        try:
            results = self.client.ask(prompts, KIND, accept=_unfiltered)
        except (BadInput, Interrupted):
            kept = self.client.kept(prompts, KIND)
            yield {one.key: reply.text for one, reply in zip(asked, kept, strict=True) if reply is not None}
            raise
        yield {
            one.key: NoAnswer(result.reason, result.lasting) if isinstance(result, Failure) else result.text
            for one, result in zip(asked, results, strict=True)
        }


def _unfiltered(reply: Reply) -> str:
    return CONTENT_FILTER if reply.finish_reason == CONTENT_FILTER else ""
