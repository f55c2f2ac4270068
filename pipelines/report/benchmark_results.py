"""What the report's benchmark sections hold: tables, comparisons and sampled answers, drawn from scores.json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(_Document):
    """A score in the leaderboard's unit, with its 95 % interval where it was measured here."""

    value: float
    low: float | None = None
    high: float | None = None


class Row(_Document):
    """One model in a leaderboard: scored in this run, or `published` elsewhere."""

    model: str
    published: bool
    source: str
    cells: dict[str, Cell]
    """By language; a language without a score is left out."""
    mean: float | None
    """Unweighted mean over the board's languages, as the papers average; None where one is lacking."""
    gap: float | None
    """Score in the pivot language minus the mean of the others."""


class Leaderboard(_Document):
    """One benchmark: a row per model, a column per language."""

    benchmark: str
    title: str
    figure: str
    unit: str
    """"%" or "points"."""
    best: float
    """The highest score there is: where a radar's axis ends."""
    languages: list[str]
    rows: list[Row]
    note: str


class Reading(_Document):
    """What a profile takes an answer to say."""

    profile: str
    said: str | None
    how: str
    right: bool


class BrowsedAnswer(_Document):
    """An answer with its question, and what each profile read in it."""

    benchmark: str
    language: str
    item: str
    rotation: int
    model: str
    question: str
    options: list[str]
    gold: str
    answer: str | None
    readings: list[Reading]
    why: str
    """Why it is shown: "profiles disagree", "wrong" or "right"."""


class Cost(_Document):
    """What reading the answers by a tool's rules does to a score, against our own rules."""

    model: str
    benchmark: str
    language: str
    profile: str
    headline: float | None
    read_by_robust_alone: float
    read_differently: float


class Paired(_Document):
    """A paired test between two models on the same items."""

    benchmark: str
    language: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    n: int


class Consistency(_Document):
    """One model over the languages of a benchmark, on the items that all of them have."""

    model: str
    benchmark: str
    items: int
    languages: list[str]
    right_in: list[float]
    """Share of the items that are right in exactly k languages, k from 0."""
    common_subset: dict[str, float]


class BenchmarkSection(_Document):
    """All benchmark sections."""

    leaderboards: list[Leaderboard]
    costs: list[Cost]
    paired: list[Paired]
    consistency: list[Consistency]
    judges: dict[str, float]
    """Judge -> highest share of reviews that failed in any benchmark and language."""
    experts: dict[str, dict[str, list[float]]]
    """Model -> language -> mean weight of each expert."""
    answers: list[BrowsedAnswer]
