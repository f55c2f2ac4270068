"""What a benchmark is: its files, its questions, and how an answer is read and counted.

Each module of `pipelines.benchmarks.sets` declares one as `BENCHMARK`; adding a benchmark is adding such a file.
A score stands under a *profile*: the rules of one tool by which answers are read. The same answers can
be read under several.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import Asked
from pipelines.benchmarks.statistics import Estimate
from pipelines.judge.spec import Protocol

PROFILES = ("robust", "vlmevalkit", "parrot-2024-08", "lmms-eval", "official")
HEADLINE_PROFILE = "robust"
LEAVES_MISSING_OUT = frozenset({"vlmevalkit", "parrot-2024-08", "lmms-eval"})
"""Tools that score what was answered: an item whose first row has no answer leaves the denominator."""


@dataclass(frozen=True)
class Reading:
    """What a profile takes an answer to say; `said` is None where it finds nothing in it."""

    said: str | None
    how: str
    right: bool
    languages: frozenset[str] = frozenset()
    """Of an open answer: the languages in which its value was said."""


Reader = Callable[[Asked, str], Reading]
Row = tuple[Asked, Reading]


@dataclass(frozen=True)
class Judged:
    """One scored item: its category, image (the cluster) and values in [0, 1]."""

    item: str
    category: str
    image: str
    values: Mapping[str, float]
    details: Mapping[str, str] = field(default_factory=dict)


Totals = Callable[[Sequence[Judged]], dict[str, Estimate | None]]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    `values` turns the read rotations of one item into its figures, each in [0, 1]; the first of `figures`
    is the headline. `totals` gives by profile what is no mean of items, such as MME's points.
    """

    name: str
    title: str
    file: str
    """Its file in a benchmark table, with `{language}` in it."""
    languages: tuple[str, ...]
    """In which it is published; other languages may be added by translation."""
    questions: Callable[[Files, str], list[Asked]]
    readers: Mapping[str, Reader]
    figures: tuple[str, ...]
    values: Callable[[Sequence[Row]], dict[str, float]] = lambda rows: {}
    item_figure: str = ""
    """The figure that single items are compared by; the headline where nothing is said."""
    published_figure: str = ""
    """The figure of the papers' rows; the headline where nothing is said."""
    companions: tuple[str, ...] = ()
    """Further files of a language."""
    image_names: Callable[[Path], list[str]] | None = None
    """The images that a file of questions names; none where images stand in the file itself."""
    translated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By file: the keys of its lines that are words, where the benchmark may be put into further languages."""
    size: int | None = None
    """Questions per language as published, where that is known."""
    totals: Mapping[str, Totals] = field(default_factory=dict)
    stops: bool = False
    """Whether an item is lost with its first wrong rotation, so that the others need not be asked."""
    speaks: bool = False
    """Whether answers are words, so that their language can be told."""
    leaves_missing_out: frozenset[str] = LEAVES_MISSING_OUT
    """Profiles in which what has no answer leaves the denominator."""
    protocol: Protocol | None = None
    """How a judge rates the answers, where one does."""
    best: float = 1.0
    """The highest score there is, on the headline's scale: the radar's fixed axis ends there."""


@functools.cache
def catalogue() -> dict[str, Benchmark]:
    """Every benchmark there is, by name: one per module of `pipelines.benchmarks.sets`."""
    from pipelines.benchmarks import sets

    found = {}
    for module in sorted(pkgutil.iter_modules(sets.__path__), key=lambda one: one.name):
        benchmark: Benchmark = importlib.import_module(f"{sets.__name__}.{module.name}").BENCHMARK
        found[benchmark.name] = benchmark
    return found
