"""How many CPU cores this process may use: what stages take where nothing says how many."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container (cgroup v2): microseconds of CPU time in a period, or `max`, and the period."""
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_OLD_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> int:
    """Cores that this process may run on, and no more than its container's share: a pod sees all cores of its node."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def cores_of_a_rank() -> int:
    """An equal part of them for each rank that torchrun started on this machine."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _quota() -> float | None:
    try:
        if _QUOTA.is_file():
            share, period = _QUOTA.read_text().split()
        else:
            share, period = _OLD_QUOTA.read_text(), _OLD_PERIOD.read_text()
        return None if share == "max" or int(share) < 0 else int(share) / int(period)
    except (OSError, ValueError):
        # No container, or one that does not say.
        return None
