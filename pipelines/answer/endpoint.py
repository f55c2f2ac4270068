"""A vision-language model behind an OpenAI-compatible server: images go with the prompt, answers are kept."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput
from pipelines.progress import Progress
from pipelines.remote.client import ChatClient, Failure
from pipelines.remote.spec import Conduct, Server

KIND = "benchmark answer 1"
SEPARATOR = "\n"
"""Between an image's digest and the words, in what goes to the client as the prompt."""


class ImageClient(ChatClient):
    """The shared client, with an image before the words."""

    images: Mapping[str, bytes] = {}

    def body(self, prompt: str) -> dict[str, Any]:
        digest, _, words = prompt.partition(SEPARATOR)
        body = super().body(words)
        content = self.images[digest]
        kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
        url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        body["messages"][-1]["content"] = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": words},
        ]
        return body


class Endpoint:
    """Asks a server. What it does not answer is no answer: the run stops, and goes on from there when run again."""

    def __init__(self, server: Server, conduct: Conduct, cache: Path, *, account: str) -> None:
        self.server = server.model_copy(update={"temperature": 0.0})
        self.client = ImageClient(self.server, conduct, cache, account=account)

    def see(self, images: Mapping[str, bytes], progress: Progress) -> None:
        self.client.images = images

    def answer(self, asked: Sequence[Asked], max_new_tokens: int) -> list[str]:
        """Raises:
        BadInput: the server refuses, or some questions got no answer after all retries.
        Interrupted: the server is away for too long.
        """
        prompts = [one.image_sha256 + SEPARATOR + one.prompt for one in asked]
        self.client.server = self.server.model_copy(update={"max_tokens": max_new_tokens})
        results = self.client.ask(prompts, KIND, accept=lambda _: "")
        failed = [
            (one, result) for one, result in zip(asked, results, strict=True) if isinstance(result, Failure)
        ]
        if failed:
            one, failure = failed[0]
            raise BadInput(
                f"{len(failed)} of {len(asked)} questions got no answer, the first {one.key}: {failure.reason}",
                where=self.server.base_url,
                remedy="run again: what was answered is kept, and only these are asked once more",
            )
        return [result.text for result in results if not isinstance(result, Failure)]
