"""XVNLI (IGLUE): does the picture entail, contradict, or leave open a statement? Five languages, 1,164 statements each.

14 of the gold labels are "-", which no answer can hit. IGLUE keeps them in the denominator ("accuracy", at most
98.8 %); `accuracy_valid` leaves them out. Generative models need words for the labels: `VERBALISER`, part of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import json_files, short_answers
from pipelines.benchmarks.benchmark import Benchmark, Row
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.profiles import official
from pipelines.benchmarks.prompts import prompt_in
from pipelines.benchmarks.question import Asked

FILE = "xvnli_{language}.jsonl"
LABELS = ("entailment", "neutral", "contradiction")
OF_TRUTH = {"true": "entailment", "unclear": "neutral", "false": "contradiction"}
NO_LABEL = "-"
VERBALISER = {
    "en": ("true", "unclear", "false"),
    "ar": ("صحيح", "غير واضح", "خطأ"),
    "es": ("verdadero", "incierto", "falso"),
    "fr": ("vrai", "incertain", "faux"),
    "ru": ("верно", "неясно", "неверно"),
}
"""By language, the words for entailment, neutral and contradiction."""
PROMPTS = {
    "en": "Statement: {statement}\nJudging by the picture, is the statement true, unclear or false? Answer with one word.",
    "ar": "العبارة: {statement}\nبحسب الصورة، هل العبارة صحيح أم غير واضح أم خطأ؟ أجب بواحدة من هذه الكلمات فقط.",
    "es": "Afirmación: {statement}\nSegún la imagen, ¿es verdadero, incierto o falso? Responde con una sola palabra.",
    "fr": "Affirmation : {statement}\nD'après l'image, est-ce vrai, incertain ou faux ? Répondez par un seul mot.",
    "ru": "Утверждение: {statement}\nСудя по картинке, это верно, неясно или неверно? Ответьте одним словом.",
}


def questions(files: Files, language: str) -> list[Asked]:
    """One question per statement.

    Raises:
        BadInput: a line is malformed, names a missing image, or has another label; or the file's name another language.
    """
    path = files.path(FILE.format(language=language))
    prompt = prompt_in(PROMPTS, language, path)
    asked = []
    keys = ("gold_label", "sentence2", "pairID", "Flikr30kID")
    for number, row in json_files.lines(
        path, keys, unique="pairID", allowed={"gold_label": (*LABELS, NO_LABEL)}
    ):
        image = json_files.image(files, path, f"{row['Flikr30kID']}.jpg", number)
        asked.append(
            Asked(
                benchmark="xvnli",
                language=language,
                item=row["pairID"],
                rotation=0,
                prompt=prompt.format(statement=row["sentence2"]),
                question=row["sentence2"],
                options=(),
                gold=row["gold_label"],
                category=row["gold_label"],
                image=image.content,
                image_sha256=image.sha256,
            )
        )
    return asked


def image_names(path: Path) -> list[str]:
    """The images that a file of questions names."""
    return [f"{row['Flikr30kID']}.jpg" for _, row in json_files.lines(path, ("Flikr30kID",))]


def label(answer: str, _: Asked | None = None) -> tuple[str | None, str]:
    """The label that the answer gives, by its name or by words for true, unclear and false in any language."""
    said, how = short_answers.truth(answer)
    return (None if said is None else OF_TRUTH[said]), how


def exact_label(answer: str, asked: Asked) -> tuple[str | None, str]:
    """The label of which the answer is the name, or the prompt's word, exactly.

    IGLUE's models are classifiers: its code takes the highest of three class scores and reads no text. The verbaliser is
    what classes are to a model that answers in words.
    """
    classes = dict(zip(VERBALISER[asked.language], LABELS, strict=True))
    if answer in classes:
        return classes[answer], "verbaliser"
    # "-" is no class, so an answer "-" does not hit a gold "-".
    return official.exact(answer) if answer in LABELS else short_answers.UNRESOLVED


def values(rows: Sequence[Row]) -> dict[str, float]:
    asked, reading = rows[0]
    scored = {"accuracy": float(reading.right), "unresolved": float(reading.said is None)}
    return scored if asked.gold == NO_LABEL else {**scored, "accuracy_valid": float(reading.right)}


BENCHMARK = Benchmark(
    name="xvnli",
    title="XVNLI",
    file=FILE,
    image_names=image_names,
    languages=("en", "ar", "es", "fr", "ru"),
    size=1164,
    questions=questions,
    readers={
        "robust": short_answers.word_reader(label),
        "official": short_answers.word_reader(exact_label),
    },
    values=values,
    figures=("accuracy", "accuracy_valid", "unresolved"),
)
