"""Errors that a person can act on, and the exit codes that carry them across processes."""

from __future__ import annotations

import errno
from pathlib import Path

BAD_INPUT_EXIT_CODE = 42
"""A stage that exits with this code met bad input: running it again cannot help."""

INTERRUPTED_EXIT_CODE = 75
"""A stage that exits with this code saved its state and goes on where it was when run again."""


class BadInput(Exception):
    """Input that cannot be used: says what is wrong, where it stands, and what to do.

    Never retried. `where` names the file, and the row, uid or key in it where there is one.
    """

    def __init__(self, what: str, *, where: str | Path, remedy: str) -> None:
        self.what, self.where, self.remedy = what, str(where), remedy
        super().__init__(f"{what}\n  where:  {where}\n  remedy: {remedy}")


class Interrupted(Exception):
    """The stage was asked to stop, saved what it had, and will resume when it is run again."""


class StageFailed(Exception):
    """A launched stage ended without publishing its table; the message holds its last words."""


def disk_full_as_bad_input(error: OSError, where: Path) -> Exception:
    """The error to raise for `error`: a full disk is named as such, everything else stays."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return BadInput(
        "the disk is full",
        where=where,
        remedy="free some space and run the same command again; finished parts are kept and reused",
    )
