"""xGQA (IGLUE): GQA's questions in eight languages; the gold answers stay English words in all of them.

IGLUE matches exactly, capitals and all, and a question without an answer leaves its denominator ("accuracy" under
the official profile); `accuracy` elsewhere counts it as wrong, over all 9,666. A model is asked for a short answer in
English. Where the table brings `xgqa_answers_<language>.json` (English answer -> words), those words are taken too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import json_files, lexicon, short_answers
from pipelines.benchmarks.benchmark import LEAVES_MISSING_OUT, Benchmark, Row
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.profiles import official
from pipelines.benchmarks.prompts import prompt_in
from pipelines.benchmarks.question import Asked

FILE = "xgqa_{language}.json"
TRANSLATED_ANSWERS = "xgqa_answers_{language}.json"
PROMPTS = {
    "en": "{question}\nAnswer in English with a single word or phrase.",
    "bn": "{question}\nইংরেজিতে একটি শব্দ বা বাক্যাংশে উত্তর দাও।",
    "de": "{question}\nAntworte auf Englisch mit einem einzigen Wort oder Ausdruck.",
    "id": "{question}\nJawab dalam bahasa Inggris dengan satu kata atau frasa.",
    "ko": "{question}\n한 단어 또는 구로 영어로 대답하세요.",
    "pt": "{question}\nResponda em inglês com uma única palavra ou expressão.",
    "ru": "{question}\nОтветьте по-английски одним словом или выражением.",
    "zh": "{question}\n请用一个英文单词或短语回答。",
}


def questions(files: Files, language: str) -> list[Asked]:
    """One question per entry; its category is GQA's structural type.

    Raises:
        BadInput: the file is malformed, names a missing image, or is named after another language.
    """
    path = files.path(FILE.format(language=language))
    prompt = prompt_in(PROMPTS, language, path)
    words = json_files.words(files.find(TRANSLATED_ANSWERS.format(language=language)))
    asked = []
    for identity, row in json_files.entries(path, ("question", "imageId", "answer")):
        image = json_files.image(files, path, f"{row['imageId']}.jpg", identity)
        types = row.get("types")
        asked.append(
            Asked(
                benchmark="xgqa",
                language=language,
                item=identity,
                rotation=0,
                prompt=prompt.format(question=row["question"]),
                question=row["question"],
                options=(),
                gold=row["answer"],
                category=types.get("structural", "") if isinstance(types, dict) else "",
                image=image.content,
                image_sha256=image.sha256,
                details={"translated": words.get(row["answer"], "")},
            )
        )
    return asked


def image_names(path: Path) -> list[str]:
    """The images that a file of questions names."""
    return [f"{row['imageId']}.jpg" for _, row in json_files.entries(path, ("imageId",))]


def short_answer(answer: str, asked: Asked) -> tuple[str | None, str]:
    """The answer's first line without case, article and punctuation; the gold's own words stand for the gold.

    "I don't know", in any language, is no answer, unless it is the gold.
    """
    said = short_answers.normalised_phrase(answer)
    if asked.details["translated"] and said == short_answers.normalised_phrase(asked.details["translated"]):
        return asked.gold, "translated"
    if said == short_answers.normalised_phrase(asked.gold):
        return asked.gold, "phrase"
    if asked.gold in ("yes", "no"):
        found, how = short_answers.yes_or_no(answer, asked)
        if found is not None:
            return found, how
    if lexicon.states_nothing(lexicon.folded(said).strip(lexicon.MARKS)):
        return short_answers.UNRESOLVED
    return (said, "phrase") if said else short_answers.UNRESOLVED


def values(rows: Sequence[Row]) -> dict[str, float]:
    _, reading = rows[0]
    return {"accuracy": float(reading.right), "unresolved": float(reading.said is None)}


BENCHMARK = Benchmark(
    name="xgqa",
    title="xGQA",
    file=FILE,
    companions=(TRANSLATED_ANSWERS,),
    image_names=image_names,
    languages=("en", "bn", "de", "id", "ko", "pt", "ru", "zh"),
    size=9666,
    questions=questions,
    readers={
        "robust": short_answers.word_reader(short_answer),
        "official": short_answers.word_reader(lambda answer, _: official.exact(answer)),
    },
    values=values,
    figures=("accuracy", "unresolved"),
    leaves_missing_out=LEAVES_MISSING_OUT | {"official"},
)
