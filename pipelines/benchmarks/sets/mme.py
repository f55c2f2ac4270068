"""MME: two yes/no questions about each image, fourteen tasks.

A task's points are 100 times its accuracy plus 100 times the share of images with both answers right. Perception
is the sum of ten tasks (2,000 points at most), cognition that of four (800).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from pipelines.benchmarks import short_answers, tsv
from pipelines.benchmarks.benchmark import Benchmark, Judged, Row
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.profiles import lmms_eval, official, vlmevalkit
from pipelines.benchmarks.question import Asked
from pipelines.benchmarks.statistics import Estimate, estimate, weighted_sum

FILE = "mme_{language}.tsv"
PERCEPTION = (
    *(
        "existence",
        "count",
        "position",
        "color",
        "posters",
        "celebrity",
        "scene",
        "landmark",
        "artwork",
        "OCR",
    ),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
POINTS = 100.0


def questions(files: Files, language: str) -> list[Asked]:
    """The questions as published: they ask for yes or no themselves.

    Raises:
        BadInput: a row's answer is neither Yes nor No, its task is none of the fourteen, or an image has not two questions.
    """
    asked = []
    pairs: dict[tuple[str, str], list[tsv.Row]] = defaultdict(list)
    for row in tsv.read(
        files.path(FILE.format(language=language)), ("category", "image_path", "question", "answer")
    ):
        gold = row.cells["answer"].strip().lower()
        if gold not in ("yes", "no"):
            raise row.bad(f"the answer {row.cells['answer']!r} is neither Yes nor No")
        if row.cells["category"] not in (*PERCEPTION, *COGNITION):
            # Its points would be in no sum.
            raise row.bad(
                f"the task {row.cells['category']!r} is none of {', '.join((*PERCEPTION, *COGNITION))}"
            )
        pairs[row.cells["category"], row.cells["image_path"]].append(row)
        asked.append(
            Asked(
                benchmark="mme",
                language=language,
                item=row.cells["index"],
                rotation=0,
                prompt=row.cells["question"],
                question=row.cells["question"],
                options=(),
                gold=gold,
                category=row.cells["category"],
                image=row.image,
                image_sha256=hashlib.sha256(row.image).hexdigest(),
                details={"pair": row.cells["image_path"]},
            )
        )
    for (_, image), rows in pairs.items():
        if len(rows) != 2:
            # Half of the points are for two right answers about one image.
            raise rows[-1].bad(f"the image {image!r} has {len(rows)} question(s) in its task, not two")
    return asked


def values(rows: Sequence[Row]) -> dict[str, float]:
    _, reading = rows[0]
    return {"accuracy": float(reading.right), "unresolved": float(reading.said is None)}


def points(judged: Sequence[Judged]) -> dict[str, Estimate | None]:
    """The points of every task, of perception, of cognition, and of all."""
    tasks: dict[str, list[tuple[float, Estimate]]] = {}
    by_task: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_task[one.category].append(one)
    for task, of_task in by_task.items():
        images: dict[str, list[float]] = defaultdict(list)
        for one in of_task:
            images[one.details["pair"]].append(one.values["accuracy"])
        single = estimate(
            [one.values["accuracy"] for one in of_task], [one.details["pair"] for one in of_task]
        )
        both = estimate([float(all(pair)) for pair in images.values()], list(images))
        if single is not None and both is not None:
            tasks[task] = [(POINTS, single), (POINTS, both)]

    def total(names: Sequence[str]) -> Estimate | None:
        return weighted_sum([part for name in names if name in tasks for part in tasks[name]])

    return {
        "score": total((*PERCEPTION, *COGNITION)),
        "perception": total(PERCEPTION),
        "cognition": total(COGNITION),
        **{f"task {task}": total((task,)) for task in tasks},
    }


READERS = {
    "robust": short_answers.word_reader(short_answers.yes_or_no),
    "vlmevalkit": short_answers.word_reader(lambda answer, _: vlmevalkit.yes_or_no(answer)),
    "parrot-2024-08": short_answers.word_reader(
        lambda answer, _: vlmevalkit.yes_or_no_of_august_2024(answer)
    ),
    "lmms-eval": short_answers.word_reader(lambda answer, _: lmms_eval.yes_or_no(answer)),
    "official": short_answers.word_reader(lambda answer, _: official.yes_or_no(answer)),
}

BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    file=FILE,
    languages=("en",),
    size=2374,
    questions=questions,
    readers=READERS,
    values=values,
    figures=("score", "perception", "cognition", "accuracy", "unresolved"),
    totals=dict.fromkeys(READERS, points),
    item_figure="accuracy",
    best=2800.0,
)
