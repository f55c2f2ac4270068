"""What was answered once is never asked again: across runs, crawls and recipes.

One SQLite file: many processes of one machine may use it at once, a kill loses nothing that was
committed, and deleting it costs only the requests. It holds texts and counts, never a key or a header. It grows without
end unless it is pruned: `python -m pipelines.remote.prune`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pipelines.errors import BadInput
from pipelines.lake.buckets import hash_keys

_TOGETHER = 500
_DELETED_TOGETHER = 20_000
_SECONDS_A_DAY = 86_400
_WAIT_SECONDS = 60
_SCHEMA = """
create table if not exists entries (key blob primary key, value text not null, day integer) without rowid;
create table if not exists spent (
    account text primary key, requests integer not null, prompt_tokens integer not null, answer_tokens integer not null
) without rowid;
"""


class Spent(NamedTuple):
    """What an account has used up."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


def key_of(text: str, document: Mapping[str, Any]) -> bytes:
    """The key of what was asked about `text`, where `document` holds everything else that matters.

    It begins with the hash by which texts are parted into chunks, so that the entries of a chunk lie
    together in a file that is larger than memory.
    """
    canonical = json.dumps([text, document], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    place = int(hash_keys([text])[0]).to_bytes(8, "big")
    return place + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).digest()


def today() -> int:
    """Days since 1970."""
    return int(time.time() // _SECONDS_A_DAY)


class Cache:
    """Texts by key, in a file."""

    def __init__(self, path: Path) -> None:
        """Raises:
        BadInput: the file is no such cache, or is damaged.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told():
            self._database = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
            self._database.execute("pragma journal_mode=wal")
            # A killed process loses nothing; a power failure the last few entries, which are asked again.
            self._database.execute("pragma synchronous=normal")
            self._database.executescript(_SCHEMA)
            self._add_days()

    def _add_days(self) -> None:
        """Entries from before there was this column have no day, and count as the oldest."""
        if "day" in [row[1] for row in self._database.execute("pragma table_info(entries)")]:
            return
        try:
            self._database.execute("alter table entries add column day integer")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # another process was faster
                raise

    def get(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The entries that there are among `keys`."""
        found: dict[bytes, str] = {}
        ordered = sorted(set(keys))
        with self._told():
            for start in range(0, len(ordered), _TOGETHER):
                part = ordered[start : start + _TOGETHER]
                marks = ",".join("?" * len(part))
                # Only question marks are put into the statement.
                query = f"select key, value from entries where key in ({marks})"  # noqa: S608
                found.update(self._database.execute(query, part).fetchall())
        return found

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Keep the entries; of one key, the first stays, so that what was read once is what is read again."""
        day = today()
        rows = [(key, value, day) for key, value in sorted(entries.items())]
        with self._told(), self._transaction():
            self._database.executemany(
                "insert or ignore into entries (key, value, day) values (?, ?, ?)", rows
            )

    def sizes(self) -> list[tuple[int, int, int]]:
        """By day on which entries were kept (days since 1970; -1: not known), oldest first: entries, and their bytes."""
        query = (
            "select coalesce(day, -1), count(*), sum(length(key) + length(cast(value as blob))) "
            "from entries group by 1 order by 1"
        )
        with self._told():
            return self._database.execute(query).fetchall()

    def forget(self, before: int) -> int:
        """Delete the entries that were kept before a day; return how many. What accounts have spent stays.

        Some thousand at a time, so that others who use the file wait for moments only. Their disk is free after `shrink`.
        """
        deleted = 0
        some = (
            "delete from entries where key in (select key from entries where coalesce(day, -1) < ? limit ?)"
        )
        with self._told():
            while True:
                gone = self._database.execute(some, (before, _DELETED_TOGETHER)).rowcount
                deleted += gone
                if gone < _DELETED_TOGETHER:
                    return deleted

    def shrink(self) -> None:
        """Give the disk of deleted entries back; needs as much free disk as what is left takes.

        Raises:
            BadInput: others are writing to the file.
        """
        with self._told():
            self._database.execute("vacuum")
            self._database.execute("pragma wal_checkpoint(truncate)")

    def spent(self, account: str) -> Spent:
        query = "select requests, prompt_tokens, answer_tokens from spent where account = ?"
        with self._told():
            row = self._database.execute(query, (account,)).fetchone()
        return Spent(*row) if row else Spent()

    def spend(self, account: str, used: Spent) -> None:
        with self._told():
            self._database.execute(
                "insert into spent values (?, ?, ?, ?) on conflict (account) do update set "
                "requests = requests + excluded.requests, "
                "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                "answer_tokens = answer_tokens + excluded.answer_tokens",
                (account, *used),
            )

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._database.execute("rollback")
            raise
        self._database.execute("commit")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise BadInput(
                f"the request cache cannot be used: {error}",
                where=self.path,
                remedy="free some space, or correct the folder's permissions, and run the same command again",
            ) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(
                f"this file is no request cache, or a damaged one: {error}",
                where=self.path,
                remedy="move it away and run again: only the requests in it are lost",
            ) from error
