"""One attempt at one request: what came back, or what kind of failure it was.

Kinds of failure differ in what helps. A request that the server cannot answer is given up after some attempts; a
server that is away is waited for; a wrong address or key is told at once.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx
import openai

from pipelines.remote.spec import Conduct, Server

_FATAL = {301, 302, 303, 307, 308, 401, 402, 403, 404, 405}
_AWAY = {502, 503, 504, 529}
_TOO_MANY = 429
_ASK_AGAIN = {408, 409, 425}
_SERVER_ERROR = 500
_DETAIL_CHARACTERS = 300
CONTENT_FILTER = "content_filter"
"""OpenAI's `finish_reason`, and the reason of the fault, where a filter or the model refused."""
NO_TEXT = "no_text"
"""The reason of a fault: a chat completion whose text is null, and nothing says why."""


class Trouble(Enum):
    """What a failed attempt calls for."""

    FATAL = "fatal"
    """No request can succeed: a wrong key, address or model."""
    REFUSED = "refused"
    """This request is refused, and would be again."""
    BROKEN = "broken"
    """This attempt went wrong: another may not."""
    AWAY = "away"
    """The server is not there, or too busy: wait for it."""


@dataclass(frozen=True)
class Answer:
    """A chat completion, as the server told it."""

    text: str
    finish_reason: str
    model: str
    system_fingerprint: str | None
    prompt_tokens: int | None
    answer_tokens: int | None


@dataclass(frozen=True)
class Fault:
    """A failed attempt."""

    trouble: Trouble
    reason: str
    """A fixed word, to be counted: timeout, http_500, not_a_completion, ..."""
    detail: str
    """For a person: never holds the key."""
    wait_seconds: float | None = None
    """What the server asked to wait, where it did."""


class TooLongBody(Exception):
    """The body is longer than is read, or compressed, which was not asked for."""


class Transport:
    """Sends requests to a server, one attempt each; used inside an event loop."""

    def __init__(self, server: Server, conduct: Conduct, key: str | None) -> None:
        self._server, self._conduct, self._key = server, conduct, key
        seconds = conduct.request_seconds
        http = httpx.AsyncClient(
            timeout=httpx.Timeout(seconds, connect=conduct.connect_seconds),
            limits=httpx.Limits(
                max_connections=conduct.concurrency, max_keepalive_connections=conduct.concurrency
            ),
            follow_redirects=False,  # a key goes to the server that was named, and to no other
            event_hooks={"response": [self._limit_body]},
        )
        self._client = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=key or "none",  # the library wants one; a server without keys ignores it
            max_retries=0,
            timeout=httpx.Timeout(seconds, connect=conduct.connect_seconds),
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.close()

    async def attempt(self, body: Mapping[str, Any]) -> Answer | Fault:
        """Ask once, within `request_seconds` for the whole of it."""
        known = {name: body[name] for name in body if name != "extra_body"}
        try:
            async with asyncio.timeout(self._conduct.request_seconds):
                raw = await self._client.chat.completions.with_raw_response.create(
                    **known, extra_body=body.get("extra_body") or None
                )
        except (openai.APITimeoutError, TimeoutError):
            return self._fault(
                Trouble.BROKEN, "timeout", f"no whole answer in {self._conduct.request_seconds:g} s"
            )
        except openai.APIStatusError as error:
            return self._refusal(error)
        except openai.APIConnectionError as error:
            return self._unconnected(error.__cause__ or error)
        return self._read(raw.http_response.content)

    async def _limit_body(self, response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise TooLongBody("the answer is compressed, though that was not asked for")
        response.stream = _Limited(response.stream, self._conduct.most_bytes)

    def _read(self, content: bytes) -> Answer | Fault:
        try:
            document = json.loads(content)
            choice = document["choices"][0]
            text = choice["message"]["content"]
            if text is None:
                return self._textless(choice)
            if not isinstance(text, str):
                raise TypeError("its text is no text")
            usage = document.get("usage") or {}
            return Answer(
                text=text,
                finish_reason=str(choice.get("finish_reason") or ""),
                model=str(document.get("model") or ""),
                system_fingerprint=document.get("system_fingerprint"),
                prompt_tokens=_count(usage.get("prompt_tokens")),
                answer_tokens=_count(usage.get("completion_tokens")),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            shown = content[:80].decode("utf-8", "replace")
            words = f"this is no chat completion ({type(error).__name__}): {shown!r}"
            return self._fault(Trouble.BROKEN, "not_a_completion", words)

    def _textless(self, choice: Mapping[str, Any]) -> Fault:
        """An answer without text, which servers send where a filter or the model itself refuses, and by mistake."""
        words = choice["message"].get("refusal")
        finish = choice.get("finish_reason")
        if words or finish == CONTENT_FILTER:
            return self._fault(Trouble.REFUSED, CONTENT_FILTER, str(words or f"finish_reason {finish}"))
        return self._fault(Trouble.BROKEN, NO_TEXT, f"the answer has no text, finish_reason {finish}")

    def _refusal(self, error: openai.APIStatusError) -> Fault:
        status, headers = error.status_code, error.response.headers
        words = f"HTTP {status}: {error.message}"
        reason = f"http_{status}"
        if getattr(error, "code", None) == "insufficient_quota":
            return self._fault(Trouble.FATAL, "insufficient_quota", words)
        if status in _FATAL:
            return self._fault(Trouble.FATAL, reason, words)
        if status == _TOO_MANY or status in _AWAY:
            return self._fault(Trouble.AWAY, reason, words, retry_after(headers, time.time()))
        if status >= _SERVER_ERROR or status in _ASK_AGAIN:
            return self._fault(Trouble.BROKEN, reason, words, retry_after(headers, time.time()))
        return self._fault(Trouble.REFUSED, reason, words)

    def _unconnected(self, cause: BaseException) -> Fault:
        words = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, TooLongBody):
            return self._fault(Trouble.BROKEN, "too_long_body", words)
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return self._fault(Trouble.AWAY, "no_connection", words)
        return self._fault(Trouble.BROKEN, "connection_broken", words)

    def _fault(self, trouble: Trouble, reason: str, detail: str, wait: float | None = None) -> Fault:
        # Servers repeat what they were sent, and a key must stand in no log.
        plain = detail.replace(self._key, "***") if self._key else detail
        line = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
        return Fault(trouble, reason, line[:_DETAIL_CHARACTERS], wait)


class _Limited(httpx.AsyncByteStream):
    """A body that ends in an error once it is longer than `most` bytes."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            if read > self._most:
                raise TooLongBody(f"the answer is longer than {self._most} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server asks to wait: in milliseconds, in seconds, or as a date; None if it does not."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "").strip()
        if not value:
            return None
        if value.replace(".", "", 1).isdecimal():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
