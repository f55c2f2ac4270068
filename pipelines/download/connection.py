"""A connection to a checked address that cannot outlive its deadline or its byte limit.

http.client limits a single read; a server that sends one byte now and then, in the head or in the
body, keeps it for ever. Here every operation on the socket gets the time that is left.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

from typing_extensions import Buffer

from pipelines.download.addresses import Address, Policy, Target, check_address, literal
from pipelines.download.reasons import Failure, Reason

MAX_HEAD_BYTES = 65_536
"""Limit of the bytes before the body, interim responses included."""
_ADDRESSES_TRIED = 3
_NAMES_KEPT = 20_000
_NAME_SECONDS = 300.0
_PASSING_LOOKUPS = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY})
"""A resolver that could not be asked, or not by this process: its answer may come later."""


class Deadline:
    """The time that one URL may take, and that one operation on a socket may."""

    def __init__(self, total_seconds: float, operation_seconds: float) -> None:
        self.total_seconds, self.operation_seconds = total_seconds, operation_seconds
        self._end = time.monotonic() + total_seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time that passes meanwhile does not count: it is not the server's."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - started

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def operation(self) -> float:
        """Seconds for the next operation.

        Raises:
            Failure: none are left.
        """
        left = self.left
        if left <= 0:
            raise Failure(Reason.TIMEOUT, f"not done within {self.total_seconds:g} s")
        return min(left, self.operation_seconds)

    def expired(self) -> Failure:
        """The failure of an operation that timed out; another try is worth it if time is left."""
        self.operation()
        return Failure(Reason.TIMEOUT, f"no answer for {self.operation_seconds:g} s", retryable=True)


class Connection(http.client.HTTPConnection):
    """HTTP to one target. `open_body` must be called once the head of the response has been read."""

    def __init__(self, target: Target, policy: Policy, deadline: Deadline) -> None:
        super().__init__(target.host, target.port)
        self._target, self._policy, self._deadline = target, policy, deadline
        self._stream: _Stream | None = None
        self._connected: socket.socket | None = None

    def connect(self) -> None:
        sock = _connected(self._target, self._policy, self._deadline)
        self._connected = sock
        self._stream = _Stream(sock, self._deadline)
        self.sock = _Socket(sock, self._stream)

    def open_body(self, max_bytes: int) -> None:
        """Allow the body's bytes, and some for the framing of chunks."""
        if self._stream is not None:
            self._stream.allowed += 2 * max_bytes

    def abandon(self) -> None:
        """Close the socket. `close` does not: http.client calls it before the body is read."""
        if self._connected is not None:
            self._connected.close()


class _Stream(io.RawIOBase):
    """The bytes of a socket, under the deadline and the limit."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self.allowed = MAX_HEAD_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        if self.allowed <= 0:
            raise Failure(Reason.TOO_LARGE, "more bytes than its head and body may have")
        self._sock.settimeout(self._deadline.operation())
        count = self._sock.recv_into(buffer)
        self.allowed -= count
        return count


class _Socket:
    """What http.client uses of a socket."""

    def __init__(self, sock: socket.socket, stream: _Stream) -> None:
        self._sock, self._stream = sock, stream

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._stream, 16_384)

    def close(self) -> None:
        pass


def _connected(target: Target, policy: Policy, deadline: Deadline) -> socket.socket:
    """A socket connected to an address that was checked: the very address, not the name again."""
    failed: Failure | OSError = Failure(Reason.DNS_FAILED, "the name has no address")
    for address in resolve(target.host, deadline)[:_ADDRESSES_TRIED]:
        try:
            check_address(address, target.port, policy)
        except Failure as failure:
            failed = failure
            continue
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.operation())
            sock.connect((str(address), target.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                sock.settimeout(deadline.operation())
                sock = tls_context().wrap_socket(sock, server_hostname=target.host)
            return sock
        except OSError as error:
            sock.close()
            failed = error
        except Failure:
            sock.close()
            raise
    raise failed


_tls_lock = threading.Lock()


def tls_context() -> ssl.SSLContext:
    """The one context of this process: to make one reads the whole certificate bundle (30 ms)."""
    with _tls_lock:
        return _made_tls_context()


@functools.lru_cache(maxsize=1)
def _made_tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


_names: dict[str, tuple[float, list[Address] | Failure]] = {}


def resolve(host: str, deadline: Deadline) -> list[Address]:
    """The addresses of a host, which are remembered for some minutes; checked at each use.

    Raises:
        Failure: the name has none, or the resolver did not answer in time.
    """
    if (address := literal(host)) is not None:
        return [address]
    known = _names.get(host)
    if known is None or known[0] < time.monotonic():
        if len(_names) >= _NAMES_KEPT:
            _names.clear()
        found = _looked_up(host, deadline)
        known = _names[host] = (time.monotonic() + _NAME_SECONDS, found)
    if isinstance(known[1], Failure):
        raise Failure(known[1].reason, known[1].detail)
    return known[1]


def forget(host: str) -> None:
    """Look the host up anew when it is next asked for."""
    _names.pop(host, None)


def _looked_up(host: str, deadline: Deadline) -> list[Address] | Failure:
    """The addresses, or why there are none and will be none for some time.

    Raises:
        Failure: there may be some later.
    """
    answer: list[Any] = []
    # getaddrinfo takes no timeout; a thread that hangs in it is left behind.
    thread = threading.Thread(target=_look_up, args=(host, answer), daemon=True)
    thread.start()
    thread.join(deadline.operation())
    if not answer:
        raise Failure(Reason.TIMEOUT, "the resolver did not answer", retryable=True, own=True)
    if isinstance(answer[0], socket.gaierror):
        words = answer[0].strerror or ""
        if answer[0].errno in _PASSING_LOOKUPS:
            raise Failure(Reason.DNS_FAILED, words, retryable=True, own=True)
        return Failure(Reason.DNS_FAILED, words)
    if isinstance(answer[0], Exception):
        return Failure(Reason.DNS_FAILED, str(answer[0]))
    return cast(list[Address], answer[0])


def _look_up(host: str, answer: list[Any]) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        answer.append(error)
        return
    answer.append(list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found)))
