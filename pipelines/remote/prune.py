"""`python -m pipelines.remote.prune FOLDER --days N | --gigabytes N`: bounds the kept translations and answers.

The oldest entries go first, whole days at a time. What is gone is asked or translated again when it is next needed; no table
changes, and what accounts have spent of their budgets stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.remote.cache import Cache, today

GIGABYTE = 10**9


def first_day(
    sizes: Sequence[tuple[int, int, int]], *, days: int | None, most_bytes: int | None, now: int
) -> int:
    """The day from which on entries stay, given entries and bytes by day, oldest first."""
    first = -1 if days is None else now - days
    if most_bytes is not None:
        left = sum(size for day, _, size in sizes if day >= first)
        for day, _, size in sizes:
            if left <= most_bytes:
                break
            if day >= first:
                left -= size
                first = day + 1
    return first


def prune(path: Path, *, days: int | None, most_bytes: int | None, dry_run: bool) -> str:
    """Prune one file; return what was done, in words.

    Raises:
        BadInput: the file is no cache, or others are writing to it.
    """
    with Cache(path) as cache:
        sizes = cache.sizes()
        first = first_day(sizes, days=days, most_bytes=most_bytes, now=today())
        goes = [(count, size) for day, count, size in sizes if day < first]
        stays = [(count, size) for day, count, size in sizes if day >= first]
        words = (
            f"{path}: {_words(goes)} {'would go' if dry_run else 'went'}, {_words(stays)} "
            f"{'would stay' if dry_run else 'stay'}"
        )
        if not dry_run and goes:
            cache.forget(first)
            cache.shrink()
        return words


def _words(parts: Sequence[tuple[int, int]]) -> str:
    count, size = (sum(column) for column in zip(*parts, strict=True)) if parts else (0, 0)
    return f"{count:,} entries of {size / GIGABYTE:.3f} GB"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.remote.prune", description=__doc__)
    parser.add_argument("folder", type=Path, help="<workspace>/cache, or <LAKE_CACHE>/answers")
    parser.add_argument("--days", type=int, help="entries kept longer ago go")
    parser.add_argument(
        "--gigabytes", type=float, help="of the oldest, as many go as the others need, in each file"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go")
    given = parser.parse_args(arguments)
    if given.days is None and given.gigabytes is None:
        parser.error("name --days, --gigabytes or both")
    most = None if given.gigabytes is None else int(given.gigabytes * GIGABYTE)
    try:
        files = sorted(given.folder.glob("*.sqlite"))
        if not files:
            raise BadInput(
                "no cache lies in this folder",
                where=given.folder,
                remedy="name the folder with translations.sqlite or requests.sqlite",
            )
        for path in files:
            sys.stdout.write(prune(path, days=given.days, most_bytes=most, dry_run=given.dry_run) + "\n")
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
