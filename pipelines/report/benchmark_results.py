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
    n: int | None = None
    """How many items it counts: the denominator."""


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
    best: float | None
    """The highest score there is: where a radar's axis ends; None where nobody says."""
    further: bool = False
    """Whether it is neither the headline nor the figure that the papers publish."""
    languages: list[str]
    rows: list[Row]
    note: str


class CategoryScores(_Document):
    """One category of a benchmark in a language: a score per model."""

    category: str
    cells: dict[str, Cell]
    """By model."""


class Categories(_Document):
    """One benchmark in one language, by category."""

    benchmark: str
    language: str
    figure: str
    unit: str
    models: list[str]
    rows: list[CategoryScores]


class PlaceBias(_Document):
    """What standing first does to a rating, over the items that were judged in both orders; points of 1 to 10."""

    items: int
    answer_gains_by_standing_first: float
    reference_gains_by_standing_first: float
    preferences_turned: float
    """Share of the items on which the better of the two became the worse one."""
    score_over_both_orders: float | None
    """In percent."""


class Judging(_Document):
    """What stands behind a judged score of one model, benchmark and language."""

    model: str
    benchmark: str
    language: str
    judge: str
    answered_as: dict[str, int]
    """The models that said they judged, with their reviews: servers send requests elsewhere."""
    judged: int
    """Items that have a score."""
    failed: int
    """Reviews, in both orders."""
    reasons: dict[str, int]
    as_published: float | None
    """The pooled score rounded as LLaVA's script does, in percent."""
    place_bias: PlaceBias | None


class Drift(_Document):
    """A judge against the stored reviews of another, on the items of a calibration pack; see pipelines/judge/calibration.py."""

    benchmark: str
    stored: list[str]
    now: list[str]
    items: int
    without_a_review_now: int
    bias_of_answers: float | None = None
    bias_of_references: float | None = None
    spearman: float | None = None
    flips: float | None = None
    score_stored: float | None = None
    score_now: float | None = None


class Review(_Document):
    """What the judge wrote on an answer; `order` says which of the two stood first."""

    judge: str
    order: str
    reference_score: float | None
    answer_score: float | None
    failure: str
    text: str


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
    reviews: list[Review] = []
    """Of an answer that a judge rates, in the place of readings."""
    why: str
    """Why it is shown: "profiles disagree", "wrong", "right"; of a judged one "review failed", "rated lowest", "rated highest"."""


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
    categories: list[Categories]
    judging: list[Judging]
    drift: list[Drift]
    judges: dict[str, float]
    """Judge -> highest share of reviews that failed in any benchmark and language."""
    experts: dict[str, dict[str, list[float]]]
    """Model -> language -> mean weight of each expert."""
    answers: list[BrowsedAnswer]
