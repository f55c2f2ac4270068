"""What must not be published again: URLs and domains whose removal was demanded.

The list is a table of its own, made by `python -m pipelines.takedown` and read by the download and by the stages that
publish pairs. A URL is demanded whatever its scheme, the case of its host, its default port or fragment; a domain
with everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.identity import document_sha256

FILE = "takedown.parquet"
LIST = pa.schema([("kind", pa.string()), ("value", pa.string()), ("note", pa.string())])
"""`kind` is `url` or `domain`."""
REASON = "taken_down"
DROPPED = pa.schema([(name, pa.string()) for name in ("uid", "url", "reason", "detail")])

_HOST = r"^(?i:[a-z][a-z0-9+.\-]*)://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)"


@dataclass(frozen=True)
class Demands:
    """The demanded URLs and domains, normalised; false where there are none."""

    urls: frozenset[str]
    domains: frozenset[str]

    @classmethod
    def of(cls, urls: Iterable[str], domains: Iterable[str]) -> Demands:
        """
        Raises:
            BadInput: a domain is none, or so wide that it is surely a mistake.
        """
        return cls(frozenset(map(normalised_url, urls)), frozenset(map(normalised_domain, domains)))

    def __bool__(self) -> bool:
        return bool(self.urls or self.domains)

    def __len__(self) -> int:
        return len(self.urls) + len(self.domains)

    @property
    def digest(self) -> str:
        """Of what is demanded: in whatever words, and for whatever notes."""
        return document_sha256({"urls": sorted(self.urls), "domains": sorted(self.domains)})[:16]

    def match(self, urls: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which of the URLs are demanded; never null."""
        hosts = pc.struct_field(pc.extract_regex(urls, _HOST), "host").combine_chunks().dictionary_encode()
        wanted = {host for host in hosts.dictionary.to_pylist() if host is not None and self._watches(host)}
        candidates = pc.or_(
            pc.fill_null(pc.is_in(hosts.cast(pa.string()), pa.array(sorted(wanted), pa.string())), False),
            # What is no URL (a path of a local crawl) is demanded by its very text.
            pc.fill_null(pc.is_in(urls.combine_chunks(), pa.array(sorted(self.urls), pa.string())), False),
        )
        found = candidates.to_numpy(zero_copy_only=False).copy()
        for place in found.nonzero()[0]:
            found[place] = self.demands(urls[int(place)].as_py())
        return pa.chunked_array([pa.array(found, pa.bool_())])

    def demands(self, url: str) -> str | bool:
        """Whether one URL is demanded."""
        return normalised_url(url) in self.urls or any(name in self.domains for name in _above(_host(url)))

    def _watches(self, host: str) -> bool:
        """Whether a URL of this host may be demanded."""
        return any(name in self.domains for name in _above(_plain(host))) or _plain(host) in self._hosts

    @cached_property
    def _hosts(self) -> frozenset[str]:
        """The hosts of the demanded URLs."""
        return frozenset(map(_host, self.urls))


def read(table: Path | None) -> Demands:
    """The demands in a takedown table; none for None."""
    if table is None:
        return Demands(frozenset(), frozenset())
    rows = pq.read_table(manifest.file(table, FILE), schema=LIST).to_pylist()
    return Demands.of(
        [row["value"] for row in rows if row["kind"] == "url"],
        [row["value"] for row in rows if row["kind"] == "domain"],
    )


def dropped(rows: pa.Table) -> pa.Table:
    """Rows that were demanded (`uid`, `url`), as a stage's table of dropped rows holds them."""
    none = pa.array([""] * len(rows), pa.string())
    return pa.table(
        [rows["uid"], rows["url"], pa.array([REASON] * len(rows), pa.string()), none], schema=DROPPED
    )


def normalised_url(url: str) -> str:
    """The URL without what does not tell two images apart: scheme, default port, fragment, case of the host."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port in (None, 80, 443) else f":{parts.port}"
    except ValueError:
        return url
    if not parts.netloc:
        return url
    query = f"?{parts.query}" if parts.query else ""
    return f"//{_plain(parts.hostname or '')}{port}{parts.path or '/'}{query}"


def normalised_domain(domain: str) -> str:
    """
    Raises:
        BadInput: this is no domain, or a top-level one.
    """
    plain = _plain(domain)
    if not plain or any(sign in plain for sign in "/:@?# ") or "." not in plain:
        raise BadInput(
            f"{domain!r} is no domain below a top-level one",
            where="--domain",
            remedy="give a host's name as it stands in URLs, such as images.example.org, without scheme and path",
        )
    return plain


def _host(url: str) -> str:
    try:
        return _plain(urlsplit(url if "://" in url else f"http:{url}").hostname or "")
    except ValueError:
        return ""


def _plain(host: str) -> str:
    """A host's name in lower case, in ASCII (IDNA), without the root's dot."""
    lower = host.strip().lower().rstrip(".")
    try:
        return lower.encode("idna").decode() if not lower.isascii() else lower
    except UnicodeError:
        return lower


def _above(host: str) -> list[str]:
    """The host's name and those of all domains above it."""
    labels = host.split(".")
    return [".".join(labels[at:]) for at in range(len(labels))]
