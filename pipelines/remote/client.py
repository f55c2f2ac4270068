"""Asking a language model many things: in parallel, once each, and going on where it stopped.

Every answer is kept as it comes, so a killed, interrupted or stopped run asks only for the rest. What
comes back per request is a `Reply` or a `Failure`; a failure is never kept, and never looks like an answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, Interrupted
from pipelines.remote.budget import Estimate, Purse, tokens_of
from pipelines.remote.cache import Cache, Spent, key_of
from pipelines.remote.spec import Conduct, Server
from pipelines.remote.transport import NO_TEXT, Answer, Fault, Transport, Trouble


@dataclass(frozen=True)
class Reply:
    """An answer that was accepted, now or in an earlier run (`kept`)."""

    text: str
    finish_reason: str
    model: str
    """What the server says answered: not always what was asked for."""
    system_fingerprint: str | None
    prompt_tokens: int | None
    answer_tokens: int | None
    attempts: int
    kept: bool = False


@dataclass(frozen=True)
class Failure:
    """A request without an accepted answer."""

    reason: str
    """A fixed word, to be counted."""
    detail: str
    attempts: int
    lasting: bool = False
    """Whether this very request is refused, and would be again, as far as can be told."""


Accept = Callable[[Reply], str]
"""Why a reply must not be used, as a fixed word; "" if it may."""


def whole(reply: Reply) -> str:
    """Accepts a reply that has text and was not cut off."""
    if not reply.text.strip():
        return "empty_reply"
    return "" if reply.finish_reason in ("stop", "") else f"reply_{reply.finish_reason}"


class ChatClient:
    """A model behind a server, with what it said before."""

    def __init__(self, server: Server, conduct: Conduct, cache: Path, *, account: str) -> None:
        """`cache`: the file of earlier answers; `account`: on whose budget, such as a table's path.

        Raises:
            BadInput: the environment variable that holds the key is not set.
        """
        self.server, self.conduct = server, conduct
        self._cache, self._account = Cache(cache), account
        self._key: str | None = None
        if server.api_key_env is not None:
            self._key = os.environ.get(server.api_key_env)
            if not self._key:
                raise BadInput(
                    f"the environment variable {server.api_key_env}, which holds the server's key, is not set",
                    where=server.base_url,
                    remedy=f"export {server.api_key_env}=..., or take `api_key_env` out for a server without keys",
                )

    def body(self, prompt: str) -> dict[str, Any]:
        """The request for a prompt, as it is sent: what the answer depends on."""
        server = self.server
        messages = [{"role": "system", "content": server.system}] if server.system else []
        messages.append({"role": "user", "content": prompt})
        body: dict[str, Any] = {
            "model": server.model, "messages": messages, "temperature": server.temperature,
            "max_tokens": server.max_tokens,
        }  # fmt: skip
        if server.seed is not None:
            body["seed"] = server.seed
        if server.extra_body:
            body["extra_body"] = server.extra_body
        return body

    def key(self, prompt: str, kind: str) -> bytes:
        """The cache's key: everything that is sent, to whom, and what for (`kind`, with its version)."""
        return key_of(prompt, {"kind": kind, "base_url": self.server.base_url, "request": self.body(prompt)})

    def estimate(self, prompts: Sequence[str], kind: str) -> Estimate:
        """What asking for these would cost, without asking."""
        keys = {self.key(prompt, kind): prompt for prompt in prompts}
        kept = self._cache.get(list(keys)).keys()
        asked = [prompt for key, prompt in keys.items() if key not in kept]
        prompt_tokens = sum(self._worst(prompt).prompt_tokens for prompt in asked)
        answers = len(asked) * self.server.max_tokens
        budget = self.conduct.budget
        return Estimate(
            len(asked), len(kept), prompt_tokens, answers, budget.cost(prompt_tokens, answers), budget.currency
        )  # fmt: skip

    def ask(
        self,
        prompts: Sequence[str],
        kind: str,
        *,
        accept: Accept = whole,
        done: Callable[[int], None] = lambda _: None,
    ) -> list[Reply | Failure]:
        """One result per prompt, in order; equal prompts are asked once. `done` is told of each distinct one.

        Raises:
            BadInput: the server refuses the key, the address, the model, or request after request, or the budget is
                used up.
            Interrupted: the server is away for too long, or fails request after request.
        """
        keys = [self.key(prompt, kind) for prompt in prompts]
        results: dict[bytes, Reply | Failure] = {
            key: Reply(**json.loads(text), kept=True) for key, text in self._cache.get(keys).items()
        }
        done(len(results))
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in results}
        if missing:
            asking = _Asking(self, accept, done, results)
            asyncio.run(asking.all(missing))
        return [results[key] for key in keys]

    def kept(self, prompts: Sequence[str], kind: str) -> list[Reply | None]:
        """What is kept for each prompt, in order, without asking; None where nothing is."""
        keys = [self.key(prompt, kind) for prompt in prompts]
        found = self._cache.get(keys)
        return [Reply(**json.loads(found[key]), kept=True) if key in found else None for key in keys]

    def close(self) -> None:
        self._cache.close()

    def _worst(self, prompt: str) -> Spent:
        return Spent(1, tokens_of(self.server.system, prompt), self.server.max_tokens)


class _Asking:
    """The requests of one call, under way together."""

    def __init__(
        self,
        client: ChatClient,
        accept: Accept,
        done: Callable[[int], None],
        results: dict[bytes, Reply | Failure],
    ) -> None:
        self._client, self._conduct = client, client.conduct
        self._accept, self._done, self._results = accept, done, results
        self._purse = Purse(client.conduct.budget, client._cache, client._account)
        self._under_way = 0
        self._not_before = 0.0
        self._last_answer = time.monotonic()
        self._failures_in_a_row = 0
        self._stopped: Exception | None = None

    async def all(self, missing: dict[bytes, str]) -> None:
        self._transport = Transport(self._client.server, self._conduct, self._client._key)
        waiting = iter(missing.items())
        try:
            workers = min(self._conduct.concurrency, len(missing))
            await asyncio.gather(*(self._work(waiting) for _ in range(workers)))
        finally:
            await self._transport.close()
        if self._stopped is not None:
            raise self._stopped

    async def _work(self, waiting: Iterator[tuple[bytes, str]]) -> None:
        """Take one request after another. What is under way when the run must stop is paid for, and ends."""
        for key, prompt in waiting:
            try:
                result = await self._answer(prompt)
            except (BadInput, Interrupted) as error:
                self._stopped = self._stopped or error
                return
            if result is None:
                return
            if isinstance(result, Reply):
                stored = {name: value for name, value in asdict(result).items() if name != "kept"}
                self._client._cache.put({key: json.dumps(stored, ensure_ascii=False)})
            self._results[key] = result
            self._done(1)

    async def _answer(self, prompt: str) -> Reply | Failure | None:
        """Attempts until one is accepted or no more can help; None when the run was stopped meanwhile."""
        attempts = 0
        while self._stopped is None:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            found = await self._attempt(prompt)
            if found is None:
                return None
            attempts += 1
            if isinstance(found, Answer):
                reply = Reply(**asdict(found), attempts=attempts)
                self._last_answer = time.monotonic()
                why = self._accept(reply)
                if not why:
                    self._failures_in_a_row = 0
                    return reply
                # An answer to an equal request at temperature 0 would be equal: most servers are that steady.
                attempts_left = self._conduct.attempts if self._client.server.temperature else 1
                if attempts >= attempts_left:
                    return self._given_up(Failure(why, reply.text[:200], attempts, lasting=True))
                continue
            if found.trouble is Trouble.FATAL:
                raise self._refused(found)
            refused = found.trouble is Trouble.REFUSED
            if refused or (found.trouble is Trouble.BROKEN and attempts >= self._conduct.attempts):
                lasting = refused or found.reason == NO_TEXT
                return self._given_up(Failure(found.reason, found.detail, attempts, lasting))
            await self._wait(found, attempts)
        return None

    async def _attempt(self, prompt: str) -> Answer | Fault | None:
        worst = self._client._worst(prompt)
        while True:
            try:
                self._purse.promise(worst)
                break
            except BadInput:
                if not self._under_way:
                    raise
            # What is under way mostly costs less than it may: the rest may do for this one.
            await asyncio.sleep(0.02)
            if self._stopped is not None:
                return None
        used = Spent(1)
        self._under_way += 1
        try:
            found = await self._transport.attempt(self._client.body(prompt))
            if isinstance(found, Answer):
                used = Spent(
                    1,
                    worst.prompt_tokens if found.prompt_tokens is None else found.prompt_tokens,
                    tokens_of(found.text) if found.answer_tokens is None else found.answer_tokens,
                )
            return found
        finally:
            self._under_way -= 1
            self._purse.settle(worst, used)

    async def _wait(self, fault: Fault, attempts: int) -> None:
        """Before another attempt. A server that is too busy is left alone by all requests together."""
        conduct = self._conduct
        silent = time.monotonic() - self._last_answer
        doubled = conduct.backoff_seconds * 2.0 ** min(attempts - 1, 20)
        # The second half is drawn, so that requests which failed together do not come back together.
        pause = min(conduct.longest_wait_seconds, doubled) * random.uniform(0.5, 1.0)
        if fault.wait_seconds is not None:
            pause = fault.wait_seconds
        if fault.trouble is Trouble.AWAY:
            if silent + pause > conduct.outage_seconds:
                raise Interrupted(
                    f"{self._client.server.base_url} gave no answer for {silent:.0f} s, and asks or needs "
                    f"{pause:.0f} s more ({fault.detail}). {self._kept_words()}"
                )
            self._not_before = max(self._not_before, time.monotonic() + pause)
        else:
            await asyncio.sleep(pause)

    def _given_up(self, failure: Failure) -> Failure:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._conduct.most_failures_in_a_row:
            if failure.lasting:
                raise BadInput(
                    f"{self._failures_in_a_row} requests failed in a row, the last with {failure.reason}: {failure.detail}",
                    where=f"{self._client.server.base_url}, model {self._client.server.model}",
                    remedy="see that the model takes such requests; if each of them is refused by right, raise "
                    "`conduct.most_failures_in_a_row`",
                )
            raise Interrupted(
                f"{self._failures_in_a_row} requests to {self._client.server.base_url} failed in a row, the "
                f"last with {failure.reason}: {failure.detail}. {self._kept_words()}"
            )
        return failure

    def _kept_words(self) -> str:
        kept = sum(isinstance(result, Reply) for result in self._results.values())
        return f"{kept} answers are kept; run the same command again to go on"

    def _refused(self, fault: Fault) -> BadInput:
        server = self._client.server
        remedy = "check `base_url`, `model` and the server's own log"
        if fault.reason in ("http_401", "http_403"):
            remedy = f"check the key in the variable {server.api_key_env or '(`api_key_env` names none)'}"
        elif fault.reason in ("http_402", "insufficient_quota"):
            remedy = "top up the account and run the same command again: it goes on where it stopped"
        return BadInput(
            f"the server refuses to answer: {fault.detail}",
            where=f"{server.base_url}, model {server.model}",
            remedy=remedy,
        )
