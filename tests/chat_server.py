"""A real HTTP server on loopback with the interface of a chat model, which misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """A request as it came in. `number` counts all, `nth` those with the same prompt, from 0."""

    number: int
    nth: int
    prompt: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What the server sends back."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    model: str = "served-model"
    body: bytes | None = None
    """Sent as it is, instead of a chat completion."""
    cut_after: int | None = None
    """The connection is closed after so many bytes of the body."""
    hold: bool = False
    """The answer is held back until the server is closed."""
    usage: bool = True


Script = Callable[[Call], Answer]


class ChatServer:
    """Answers by a script, and remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.together = self.most_together = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}

    def received(self, body: dict[str, Any], headers: dict[str, str]) -> Call:
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else json.dumps(content)
        with self._lock:
            nth = self._seen.get(prompt, 0)
            self._seen[prompt] = nth + 1
            call = Call(len(self.calls), nth, prompt, body, headers)
            self.calls.append(call)
            return call

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self.together += 1
            self.most_together = max(self.most_together, self.together)
        try:
            yield
        finally:
            with self._lock:
                self.together -= 1


@contextlib.contextmanager
def serving(script: Script, *, port: int = 0) -> Iterator[tuple[ChatServer, str]]:
    """The server and its base_url."""
    chat = ChatServer(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with chat.counted(), contextlib.suppress(OSError):
                length = int(self.headers["Content-Length"])
                call = chat.received(json.loads(self.rfile.read(length)), dict(self.headers.items()))
                self._send(chat.script(call), call)

        def _send(self, answer: Answer, call: Call) -> None:
            if answer.hold:
                chat.closing.wait(5)
                self.close_connection = True
                return
            content = answer.body if answer.body is not None else completion(answer, call)
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.cut_after is not None:
                self.wfile.write(content[: answer.cut_after])
                self.close_connection = True
                return
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield chat, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        chat.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def completion(answer: Answer, call: Call) -> bytes:
    document: dict[str, Any] = {
        "id": f"chat-{call.number}", "object": "chat.completion", "created": 0, "model": answer.model,
        "system_fingerprint": "fp-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text},
                "finish_reason": answer.finish_reason,
            }
        ],
    }  # fmt: skip
    if answer.usage:
        document["usage"] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    if answer.status != 200:
        document = {"error": {"message": answer.text or "no", "type": "error", "code": None}}
    return json.dumps(document, ensure_ascii=False).encode()
