"""`python -m pipelines`: the stages, and what each does."""

from __future__ import annotations

import importlib
import pkgutil

import pipelines
from pipelines.stage import Stage


def stages() -> list[Stage]:
    """Every stage that a `spec` module below `pipelines` declares, by the name of its module."""
    found = {
        value.module: value
        for info in pkgutil.walk_packages(pipelines.__path__, "pipelines.")
        if info.name.endswith(".spec")
        for value in vars(importlib.import_module(info.name)).values()
        if isinstance(value, Stage)
    }
    return [found[module] for module in sorted(found)]


if __name__ == "__main__":
    for stage in stages():
        print(f"python -m {stage.module} SPEC\n    {stage.summary}")
    print("\n--help after any of them lists the keys of its spec.")
