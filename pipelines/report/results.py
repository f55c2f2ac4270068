"""What results.json holds. The page and the terminal table are drawn from it, and from nothing else but images."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.report.benchmark_results import BenchmarkSection


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Document):
    """A mean of `n` values in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int
    clusters: int


class Step(_Document):
    """One stage's ledger: rows_in = kept + dropped; and how long the stage took.

    `seconds` is the wall time of the run that published the table: start, checks and accounting included, and without
    what an interrupted run had done before. `work_rates` are what the stage itself measured while it worked:
    images_per_second, pairs_per_second or sentences_per_second, of those that this run did.
    """

    stage: str
    seconds: float
    work_rates: dict[str, float] = {}
    rows_in: int
    kept: int
    dropped: dict[str, int]


class Histogram(_Document):
    """Scores of a crawl's pairs; `good` counts those that are right pairs, where the truth is known."""

    edges: list[float]
    counts: list[int]
    good: list[int] | None
    threshold: float | None


class Fault(_Document):
    """What became of a crawl's distinct rows with one fault, or with none."""

    fault: str
    is_good: bool
    rows: int
    downloaded: int
    kept: int


class Quality(_Document):
    """The filter against the truth: good among the kept, kept among the good that were downloaded."""

    precision: float | None
    recall: float | None
    faults: list[Fault]


class Sample(_Document):
    """A caption and its translation."""

    source: str
    text: str


class Count(_Document):
    """Pairs with one domain, language, or resolution or length in one range: how many came, how many were kept."""

    value: str
    rows: int
    kept: int


class PairSample(_Document):
    """A pair that the filter kept or dropped, or whose score is near the threshold."""

    uid: str
    kind: Literal["kept", "borderline", "dropped"]
    score: float | None
    reason: str | None
    detail: str | None
    caption: str
    url: str


class DriftPoint(_Document):
    """One crawl among those of its source; `low` and `high` are what the crawls before it led to expect."""

    crawl: str
    keep_rate: float
    median_score: float | None
    low: float | None
    high: float | None


class Crawl(_Document):
    """One crawl, from URL list to training shards."""

    steps: list[Step]
    histogram: Histogram | None
    quality: Quality | None
    near_threshold: int | None
    """Scored pairs within 0.001 of the threshold: another implementation may decide them otherwise."""
    statistics: dict[str, list[Count]]
    pairs: list[PairSample]
    samples: dict[str, list[Sample]]


class TestSetScore(_Document):
    """The translator on a published test set, beside what a paper gives for its own."""

    __test__ = False  # pytest takes it for a class of tests

    name: str
    pair: str
    segments: int
    bleu: float
    signature: str
    published: dict[str, float] = {}
    """Translator -> its BLEU, as published."""


class Translation(_Document):
    """The translator on held-out sentences, and on published test sets."""

    bleu: dict[str, float]
    signatures: dict[str, str]
    test_sets: list[TestSetScore] = []


class Aim(_Document):
    """A value that the run was to reach; `reached` is None where it was not measured."""

    name: str
    aim: float
    value: float | None
    score: Score | None
    reached: bool | None


class Finding(_Document):
    """One sentence of the paper's claim, and what this run shows of it."""

    title: str
    claim: str
    source: str
    shows: str
    figure: str
    label: str
    agrees: bool


class Curve(_Document):
    """Training loss by step."""

    name: str
    steps: list[int]
    losses: list[float]


class SharePoint(_Document):
    """One model of the sweep over the share of translated instructions (V, Fig. 5)."""

    model: str
    share: float
    asked: Score | None
    content: Score | None
    circular: Score | None


Verdict = Literal["right", "other_language", "wrong", "unresolved"]


class GalleryAnswer(_Document):
    """What a model said, and how it was judged."""

    model: str
    answer: str
    verdict: Verdict


class GalleryQuestion(_Document):
    """A question in one language."""

    language: str
    question: str
    options: list[str]
    gold: str
    answers: list[GalleryAnswer]


class GalleryItem(_Document):
    """An image that no training saw, and what was asked about it."""

    benchmark: str
    item: str
    category: str
    image_sha256: str
    questions: list[GalleryQuestion]


class TableProvenance(_Document):
    """Where a table comes from."""

    name: str
    stage: str
    data_version: str
    code_version: str
    fingerprint: str
    rows: int
    seconds: float
    created: str
    inputs: dict[str, str]


class WeightFile(_Document):
    """A file of weights, by its digest."""

    table: str
    file: str
    bytes: int
    sha256: str


class Results(_Document):
    """The whole document."""

    title: str
    pivot_language: str
    languages: list[str]
    findings: list[Finding]
    aims: list[Aim]
    crawls: dict[str, Crawl]
    drift: dict[str, list[DriftPoint]]
    """By source: its crawls in order, where there are several."""
    translation: Translation | None
    curves: list[Curve]
    scores: dict[str, Any]
    """scores.json as it stands; see pipelines/score_answers/run.py."""
    shares: dict[str, list[SharePoint]]
    """By language: the sweep over the share of that language in tuning."""
    gallery: list[GalleryItem]
    benchmarks: BenchmarkSection | None = None
    tables: list[TableProvenance]
    weights: list[WeightFile]


LANGUAGE_NAMES = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "ar": "Arabic",
    "tr": "Turkish",
    "ru": "Russian",
    "bn": "Bengali",
    "id": "Indonesian",
    "ja": "Japanese",
    "ko": "Korean",
}


def language_name(code: str) -> str:
    """The English name of a language, or its code where no name is known."""
    return LANGUAGE_NAMES.get(code, code)


def score_of(model: dict[str, Any], benchmark: str, language: str, figure: str) -> Score | None:
    """One score of a model in scores.json; None where nothing was counted."""
    found = model.get(benchmark, {}).get(language, {}).get(figure)
    return None if found is None else Score.model_validate(found)
