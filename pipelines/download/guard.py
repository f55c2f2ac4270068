"""The guarded opener: fetches a URL as `urllib.request.urlopen` does, but only what is allowed.

Installed as urllib's opener in the workers, it is what img2dataset downloads through. It has no
handler for file:, ftp: or data:, knows no proxy and no cookie, and for each hop of a redirect
checks scheme, port and address anew.
"""

from __future__ import annotations

import contextlib
import datetime
import email.message
import email.utils
import http.client
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

from pipelines.download.addresses import Policy, Target, literal, target
from pipelines.download.connection import Connection, Deadline, forget
from pipelines.download.hosts import Hosts
from pipelines.download.network import OWN_ERRORS, Network
from pipelines.download.reasons import Failure, Reason, of_status
from pipelines.download.robots import MAX_BYTES as MAX_ROBOTS_BYTES
from pipelines.download.robots import Robots
from pipelines.download.spec import DownloadParameters
from pipelines.download.suspects import Suspects, named

DISALLOWING_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
"""Directives of an `X-Robots-Tag` header by which a site says that it does not want this."""
_VALUED_DIRECTIVES = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_PAUSE_SECONDS = 0.2
_CHUNK_BYTES = 65_536
_PROBE_SECONDS = 5.0


class Response:
    """A body that was read whole, with the head's fields: what img2dataset uses of a response."""

    def __init__(self, headers: email.message.Message, body: bytes) -> None:
        self.headers, self._body = headers, body

    def read(self) -> bytes:
        return self._body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class GuardedOpener(urllib.request.OpenerDirector):
    """Opens http and https URLs within a policy and limits.

    `open` raises `Failure`, and nothing else, for whatever a URL or its server does.
    """

    def __init__(self, parameters: DownloadParameters, policy: Policy, turns: Path | None = None) -> None:
        """`turns`: the file in which processes that share a limit of connections per host meet."""
        super().__init__()
        self.suspects: Suspects | None = None
        """Where the URLs are noted that are being fetched."""
        self.passing: dict[str, Failure] = {}
        """Failures of URLs that may come later, since img2dataset hands on no more than a text; taken by whom they concern."""
        self.network = Network(self._answers)
        self._parameters, self._policy = parameters, policy
        self._agent_token = re.split(r"[/ (]", parameters.user_agent, maxsplit=1)[0].lower()
        self.hosts = Hosts(turns, parameters.connections_per_host)
        self._robots = Robots(self._robots_txt, self._agent_token) if parameters.robots_txt else None
        self._headers = {
            "User-Agent": " ".join(filter(None, (parameters.user_agent, parameters.contact))),
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        """Fetch a URL, redirects and retries included, before its deadline."""
        if data is not None:
            raise Failure(Reason.URL_INVALID, "only GET is allowed")
        url = fullurl.full_url if isinstance(fullurl, urllib.request.Request) else fullurl
        with contextlib.nullcontext() if self.suspects is None else self.suspects.beside(named(url)):
            try:
                return self._fetched(url)
            except Failure as failure:
                if failure.wait_seconds or failure.own:
                    failure.at = time.monotonic() + failure.wait_seconds
                    self.passing[url] = failure
                raise

    def _fetched(self, url: str, *, robots: bool = True) -> Response:
        """A URL's body, after as many tries as it takes and may have; `robots`: whether the site is asked for its rules."""
        limits = self._parameters
        deadline = Deadline(limits.total_seconds, limits.timeout_seconds)
        pause = _FIRST_PAUSE_SECONDS
        for tries_left in range(limits.retries, -1, -1):
            try:
                return self._follow(url, deadline, robots=robots)
            except Failure as failure:
                wait = max(pause, failure.wait_seconds)
                if not failure.retryable or tries_left == 0 or deadline.left <= wait:
                    raise
                time.sleep(wait)
                pause *= 2
        raise AssertionError("unreachable")

    def _follow(self, url: str, deadline: Deadline, *, robots: bool) -> Response:
        for hop in range(self._parameters.max_redirects + 1):
            try:
                goal = target(url, self._policy)
                if robots and self._robots is not None:
                    with deadline.paused():
                        self.hosts.pace(goal.host, self._robots.check(goal.origin, goal.path))
                with self._turn(goal, deadline):
                    answer = self._hop(goal, deadline, cut_at=None if robots else MAX_ROBOTS_BYTES)
            except Failure as failure:
                if failure.own:
                    self.network.failed(goal.host, str(failure))
                if hop > 0 and failure.reason in _REFUSALS:
                    raise Failure(Reason.REDIRECT_REFUSED, str(failure)) from None
                raise
            if isinstance(answer, Response):
                return answer
            try:
                url = urljoin(url, answer)
            except ValueError:
                raise Failure(Reason.REDIRECT_REFUSED, "to an invalid URL") from None
        raise Failure(Reason.TOO_MANY_REDIRECTS, f"more than {self._parameters.max_redirects}")

    def _robots_txt(self, url: str) -> bytes:
        return self._fetched(url, robots=False).read()

    def _answers(self, host: str, port: int) -> bool:
        """Whether a host that was reached before can be connected to, under the same rules as ever."""
        forget(host)
        connection = Connection(
            Target("http", host, port, "/"), self._policy, Deadline(_PROBE_SECONDS, _PROBE_SECONDS)
        )
        try:
            connection.connect()
        except (Failure, OSError):
            return False
        connection.abandon()
        return True

    @contextlib.contextmanager
    def _turn(self, goal: Target, deadline: Deadline) -> Iterator[None]:
        """Until it is this connection's turn, the clock stands."""
        address = literal(goal.host)
        if goal.host == "localhost" or (address is not None and address.is_loopback):
            yield
            return
        with contextlib.ExitStack() as stack:
            with deadline.paused():
                stack.enter_context(self.hosts.turn(goal.host, deadline.left))
            yield

    def _hop(self, goal: Target, deadline: Deadline, *, cut_at: int | None) -> Response | str:
        """The response, or the location that it redirects to; a body is refused where it is too long, or cut there."""
        connection = Connection(goal, self._policy, deadline)
        try:
            connection.request("GET", goal.path, headers=self._headers)
            self.network.reached(goal.host, goal.port)
            response = connection.getresponse()
            if response.status in _REDIRECTS and (location := response.headers.get("Location")):
                # Header fields are read as latin-1; a location beyond ASCII was sent as UTF-8.
                return location.strip().encode("latin-1", "replace").decode("utf-8", "replace")
            self._check_head(response, goal, about_image=cut_at is None)
            connection.open_body(cut_at or self._parameters.max_bytes)
            return Response(response.headers, self._body(response, cut_at))
        except TimeoutError:
            raise deadline.expired() from None
        except ssl.SSLError as error:
            self.network.reached(goal.host, goal.port)
            raise Failure(Reason.TLS_FAILED, _tls_words(error)) from None
        except (ConnectionError, http.client.IncompleteRead) as error:
            self.network.reached(goal.host, goal.port)
            raise Failure(Reason.CONNECTION_FAILED, _words(error), retryable=_may_pass(error)) from None
        except (http.client.HTTPException, ValueError) as error:
            raise Failure(Reason.BAD_RESPONSE, _words(error)) from None
        except OSError as error:
            own = error.errno in OWN_ERRORS
            raise Failure(Reason.CONNECTION_FAILED, _words(error), retryable=own, own=own) from None
        finally:
            connection.abandon()

    def _check_head(self, response: http.client.HTTPResponse, goal: Target, *, about_image: bool) -> None:
        status = response.status
        if status != 200:
            wait = (
                retry_after(response.headers.get("Retry-After", "")) if status in _RETRIED_STATUSES else 0.0
            )
            if wait:
                self.hosts.leave_alone(goal.host, wait)
            raise Failure(
                of_status(status),
                f"status {status}",
                retryable=status in _RETRIED_STATUSES,
                wait_seconds=wait,
            )
        if about_image:
            for line in response.headers.get_all("X-Robots-Tag", []):
                if disallows(line, self._agent_token):
                    raise Failure(Reason.DISALLOWED_BY_SITE, f"X-Robots-Tag: {line}")
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            # It was not asked for, and unpacking it is how a small body becomes a large one.
            raise Failure(Reason.NOT_AN_IMAGE, f"content encoding {encoding}")

    def _body(self, response: http.client.HTTPResponse, cut_at: int | None) -> bytes:
        limit, announced = cut_at or self._parameters.max_bytes, response.length
        if announced is not None and announced > limit and cut_at is None:
            raise Failure(Reason.TOO_LARGE, f"{announced} bytes announced")
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                if cut_at is not None:
                    return bytes(body[:limit])
                raise Failure(Reason.TOO_LARGE, f"more than {limit} bytes")
        if announced is not None and len(body) < announced:
            raise Failure(Reason.CONNECTION_FAILED, "the body ended early", retryable=True)
        return bytes(body)


_REFUSALS = frozenset({
    Reason.URL_SCHEME, Reason.URL_INVALID, Reason.USERINFO_REFUSED, Reason.PORT_REFUSED,
    Reason.ADDRESS_REFUSED,
})  # fmt: skip


def _words(error: Exception) -> str:
    """The kind of error; of its text only what the system writes, not what the server did."""
    strerror = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {strerror}" if strerror else type(error).__name__


def _tls_words(error: ssl.SSLError) -> str:
    """Of a certificate that does not hold, why."""
    return getattr(error, "verify_message", "") or error.reason or str(error)


def _may_pass(error: Exception) -> bool:
    """A connection that broke may hold the next time; a port that nobody listens on stays closed."""
    return not isinstance(error, ConnectionRefusedError)


def retry_after(field: str) -> float:
    """Seconds to wait that a `Retry-After` field asks for, as a number or as a date; 0 for none."""
    field = field.strip()
    if re.fullmatch(r"[0-9]{1,9}", field):
        return float(field)
    try:
        until = email.utils.parsedate_to_datetime(field)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())


def disallows(line: str, agent: str) -> bool:
    """Whether one `X-Robots-Tag` field disallows use, to all or to `agent` (lower case).

    A field is `[agent:] directive, directive: value, ...`.
    """
    addressed = True
    for part in line.lower().split(","):
        name, colon, directive = (piece.strip() for piece in part.partition(":"))
        if colon and name not in _VALUED_DIRECTIVES:
            addressed = name in ("*", agent)
            name = directive
        if addressed and name in DISALLOWING_DIRECTIVES:
            return True
    return False
