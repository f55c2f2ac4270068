"""All that a model is asked: every benchmark of a table, in every language, in every rotation.

A benchmark table holds files named `mmmb_<language>.tsv` and `open_<language>.parquet`, among any others. It
may hold `requests.json`, which by language asks for a letter as the models' instructions did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.benchmarks import mmmb, open_questions
from pipelines.benchmarks.open_questions import Concept, OpenQuestion
from pipelines.benchmarks.prompts import ANSWER_REQUESTS, choice_prompt
from pipelines.errors import BadInput
from pipelines.lake import manifest

Benchmark = Literal["mmmb", "open"]
Key = tuple[str, str, str, int]
"""benchmark, language, item, rotation"""


REQUESTS = "requests.json"


@dataclass(frozen=True)
class Asked:
    """One question as it is put to a model, with what is right."""

    benchmark: Benchmark
    language: str
    item: str
    rotation: int
    prompt: str
    question: str
    options: tuple[str, ...]
    gold: str
    """The right letter, or the right answer in this language."""
    category: str
    image: bytes
    image_sha256: str
    concept: Concept = ()
    """Of an open question: its right answer in every language."""

    @property
    def key(self) -> Key:
        return self.benchmark, self.language, self.item, self.rotation


def load(table: Path, languages: Sequence[str]) -> list[Asked]:
    """Every question of the table in these languages, grouped by benchmark, language and rotation.

    Raises:
        BadInput: a language has no file or no request for a letter, or a file is malformed.
    """
    asked: list[Asked] = []
    requests = _requests(table)
    for language in languages:
        if language not in requests:
            raise BadInput(
                f"there is no request for a letter in the language {language!r}",
                where=table,
                remedy=f"add a {REQUESTS} to the table, or the language to pipelines/benchmarks/prompts.py",
            )
        items = mmmb.load(manifest.file(table, f"mmmb_{language}.tsv"))
        asked += sorted(
            (one for item in items for one in _choices(item, language, requests[language])),
            key=lambda one: one.rotation,
        )
    for language in languages:
        path = manifest.file(table, f"open_{language}.parquet")
        asked += [_open(question, language, path) for question in open_questions.load(path)]
    return asked


def _requests(table: Path) -> dict[str, str]:
    for path in manifest.files(table, f"/{REQUESTS}"):
        own: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return ANSWER_REQUESTS | own
    return ANSWER_REQUESTS


def _choices(item: mmmb.ChoiceItem, language: str, request: str) -> list[Asked]:
    digest = hashlib.sha256(item.image).hexdigest()
    return [
        Asked(
            benchmark="mmmb",
            language=language,
            item=item.index,
            rotation=turned.number,
            prompt=choice_prompt(item.question, turned.options, request=request, hint=item.hint),
            question=item.question,
            options=turned.options,
            gold=turned.answer,
            category=item.category,
            image=item.image,
            image_sha256=digest,
        )
        for turned in item.rotations()
    ]


def _open(question: OpenQuestion, language: str, path: Path) -> Asked:
    if language not in question.answers:
        raise BadInput(
            f"the question {question.index!r} has no answer in its own language {language!r}",
            where=path,
            remedy="make the benchmark table again",
        )
    return Asked(
        benchmark="open",
        language=language,
        item=question.index,
        rotation=0,
        prompt=question.question,
        question=question.question,
        options=(),
        gold=question.answers[language],
        category=question.topic,
        image=question.image,
        image_sha256=hashlib.sha256(question.image).hexdigest(),
        concept=tuple(sorted(question.answers.items())),
    )
