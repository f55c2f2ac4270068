"""Errors that a person can act on, and the exit codes that carry them across processes."""

from __future__ import annotations

import errno
import re
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
        # A place in an object store is carried as a path, in which `//` became `/`.
        self.what, self.where, self.remedy = what, re.sub(r"^s3:/(?!/)", "s3://", str(where)), remedy
        super().__init__(f"{what}\n  where:  {self.where}\n  remedy: {remedy}")


class Interrupted(Exception):
    """The stage was asked to stop, saved what it had, and will resume when it is run again."""


class StoreBusy(Exception):
    """The object store throttles: the same run may succeed later, so this is no bad input."""


class StageFailed(Exception):
    """A launched stage ended without publishing its table; the message holds its last words."""


def io_error_explained(error: OSError, where: Path) -> Exception:
    """The error to raise for `error`: a full disk and a throttling store are named, everything else stays."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadInput(
            "the disk is full",
            where=where,
            remedy="free some space and run the same command again; finished parts are kept and reused",
        )
    if error.errno == errno.EBUSY and "reduce your request rate" in str(error).lower():
        return StoreBusy(
            "the object store refuses requests (SlowDown) after all attempts; nothing half-made was "
            "published. Run the same command again later, with fewer workers"
        )
    return error
