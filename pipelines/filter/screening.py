"""Blocklists and NSFW scores: what people outside know about URLs, domains and images, held against the pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.facts.hashes import Hashes
from pipelines.filter.spec import FilterSpec
from pipelines.lake import cache, takedown

_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/:?#]+)"
_DOMAIN = re.compile(r"[^\s/:@?#]+")
_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{16}")
_KEYS = ("uid", "url", "image_sha256")


def domains(urls: pa.ChunkedArray | pa.Array) -> Any:
    """The host of each URL in lower case, without `www.`; null where there is none."""
    host = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    return pc.replace_substring_regex(pc.utf8_lower(host), r"^www\.|\.$", "")


@dataclass(frozen=True)
class Blocked:
    """The entries of all blocklists."""

    demands: takedown.Demands
    """The workspace's takedown list."""
    urls: pa.Array
    domains: frozenset[str]
    sha256: pa.Array
    hashes: Hashes

    @classmethod
    def read(cls, spec: FilterSpec) -> Blocked:
        """
        Raises:
            BadInput: a list is no UTF-8 text, or an entry is none; names the file and the line.
        """
        images = _entries(spec.blocked_images, _HASH, "a SHA-256 (64 hex digits) or a pHash (16)", lower=True)
        named = _entries(spec.blocked_domains, _DOMAIN, "a domain such as example.org", lower=True)
        return cls(
            demands=takedown.read(spec.takedown),
            urls=pa.array(_entries(spec.blocked_urls, re.compile(r"\S+"), "a URL"), pa.string()),
            domains=frozenset(name.removeprefix("www.").strip(".") for name in named),
            sha256=pa.array([one for one in images if len(one) == 64], pa.string()),
            hashes=np.array([int(one, 16) for one in images if len(one) == 16], dtype=np.uint64),
        )

    def of_domains(self, hosts: pa.ChunkedArray | pa.Array) -> pa.Array:
        """The blocked domain that each host is, or is below; null for none."""
        encoded = pa.chunked_array([hosts]) if isinstance(hosts, pa.Array) else hosts
        encoded = encoded.combine_chunks().dictionary_encode()
        found = pa.array([self._blocks(host) for host in encoded.dictionary.to_pylist()], pa.string())
        return pc.take(found, encoded.indices)

    def _blocks(self, host: str) -> str | None:
        while host:
            if host in self.domains:
                return host
            host = host.partition(".")[2]
        return None


def _entries(files: Iterable[Path], form: re.Pattern[str], words: str, *, lower: bool = False) -> list[str]:
    found = []
    for path in files:
        try:
            lines = cache.local(path).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise BadInput(
                f"this blocklist is not UTF-8 text: {error}", where=path, remedy="save it as UTF-8"
            ) from None
        for number, line in enumerate(lines, 1):
            # A URL may hold a #, so a comment begins its line or follows a space.
            entry = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
            entry = entry.lower() if lower else entry
            if entry and not form.fullmatch(entry):
                raise BadInput(
                    f"{entry[:100]!r} is not {words}",
                    where=f"{path}, line {number}",
                    remedy="correct the line",
                )
            if entry:
                found.append(entry)
    return found


@dataclass(frozen=True)
class Nsfw:
    """The uids that the NSFW scores drop: those above the limit, and, if wanted, those without a score."""

    above: pa.Array
    scored: pa.Array | None

    @classmethod
    def read(cls, spec: FilterSpec, shards: Sequence[Path], scratch: Path) -> Nsfw:
        """Joined on disk; memory holds the uids that are dropped (and all scored ones, to drop the others).

        Raises:
            BadInput: a file has no such columns.
        """
        here = [cache.local(path) for path in spec.nsfw_scores]
        most, files = spec.parameters.most_nsfw, [str(path) for path in here]
        none = pa.array([], pa.string())
        if most is None or not shards:
            return cls(none, None)
        key = _key(here)
        join = f"""
            SELECT pairs.uid AS uid, max(nsfw) AS nsfw
            FROM read_parquet($pairs) AS pairs JOIN read_parquet($scores) AS scores
            ON pairs.{key} = scores.{key} GROUP BY pairs.uid
        """  # noqa: S608  # the key is one of three names
        given = {"pairs": [str(path) for path in shards], "scores": files}
        with database(scratch) as connection:
            above_uids = uids(connection, f"SELECT uid FROM ({join}) WHERE nsfw > {most}", given)  # noqa: S608
            if spec.parameters.without_nsfw_score == "keep":
                return cls(above_uids, None)
            query = f"SELECT uid FROM ({join}) WHERE nsfw IS NOT NULL"  # noqa: S608
            return cls(above_uids, uids(connection, query, given))


def _key(files: Sequence[Path]) -> str:
    """The column by which all files name their pairs."""
    for path in files:
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(
                f"this is no parquet file: {error}", where=path, remedy="give a parquet file"
            ) from None
        if "nsfw" not in names or not set(_KEYS) & set(names):
            raise BadInput(
                f"NSFW scores need a column `nsfw` and one of {', '.join(_KEYS)}; this file has {', '.join(names)}",
                where=path,
                remedy="rename its columns",
            )
    common = [key for key in _KEYS if all(key in pq.read_schema(path).names for path in files)]
    if not common:
        raise BadInput(
            "the files of NSFW scores name their pairs by different columns",
            where=files[0],
            remedy="give them one column in common",
        )
    return common[0]


def database(scratch: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB in bounded memory: what does not fit goes to `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    return duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(scratch)})


def uids(connection: duckdb.DuckDBPyConnection, query: str, given: Any) -> pa.Array:
    """The column `uid` that a query gives."""
    table: Any = connection.sql(query, params=given).to_arrow_table()
    return table["uid"].combine_chunks()
