"""Scoring: from answers to scores.json, to readings.jsonl, which says what every rule read in every answer, and to
reviews.jsonl, which says what the judge wrote on every answer that it rates.

models.<name>.<benchmark>.<language>  the figures under the `robust` profile, each with its interval; items, by_category,
                                      extraction (how letters were found), profiles (the figures under each),
                                      extraction_cost (what another tool's reading does to the headline)
models.<name>.language.<language>     asked (share of the decided answers in the asked language), decided,
                                      abstained, answers_in, by_category; of answers in words alone, since a
                                      letter is of no language
models.<name>.complete                whether every expected question was answered, and what a server refused
models.<name>.over_languages          by benchmark: items right in k languages, scores on the items that all have
comparisons.<benchmark>.<language>    paired tests between models
drift.<benchmark>                     the judge against another's reviews of the same answers
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.benchmarks import answers as answers_file
from pipelines.benchmarks import comparison, scoring, suite
from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.benchmark import HEADLINE_PROFILE, PROFILES, Judged, catalogue
from pipelines.benchmarks.completeness import completeness
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import Asked, Key
from pipelines.benchmarks.scoring import Scored
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.score_answers import reviews
from pipelines.score_answers.earlier import earlier_runs
from pipelines.score_answers.reviews import Reviewed
from pipelines.score_answers.spec import READINGS, REVIEWS, SCORES, ScoreAnswersSpec
from pipelines.score_answers.spoken import spoken_language
from pipelines.stage import Outcome, Work

Place = tuple[str, str]
"""benchmark, language"""
OfModel = dict[Place, dict[str, Scored]]
"""What was read, by place and profile."""


def run(spec: ScoreAnswersSpec, work: Work, progress: Progress) -> Outcome:
    """Write scores.json, readings.jsonl and reviews.jsonl.

    Raises:
        BadInput: a profile, a rule's or a calibrated benchmark is unknown, or answers are to other questions.
        Interrupted: the judge is down, or too many of its reviews failed; what it said is kept for the next run.
    """
    if unknown := sorted(set(spec.parameters.profiles) - set(PROFILES)):
        raise BadInput(
            f"there are no such profiles: {', '.join(unknown)}",
            where="parameters.profiles",
            remedy=f"the profiles are {', '.join(PROFILES)}",
        )
    reviews.check_rules(spec)
    answered = {name: answers_file.read(table) for name, table in spec.answers.items()}
    languages = sorted({key[1] for answers in answered.values() for key in answers})
    tables = list(spec.benchmarks.values())
    there = {language for _, language in suite.available(Files(tables))}
    # Answers in a language that the tables lack are to other questions: that is told below, of those answers.
    asked = suite.load(tables, [language for language in languages if language in there] or None)
    progress.start("models", len(answered), unit="model")
    models: dict[str, Any] = {}
    read: dict[str, OfModel] = {}
    reviewed: dict[str, dict[Place, Reviewed]] = {}
    drifted = reviews.drift(spec, progress)
    with (
        (work.out / READINGS).open("w", encoding="utf-8") as readings,
        (work.out / REVIEWS).open("w", encoding="utf-8") as judged,
    ):
        for done, (name, answers) in enumerate(answered.items(), start=1):
            check_questions(asked, answers, where=spec.answers[name])
            read[name] = _read(asked, answers, spec.parameters.profiles)
            reviewed[name] = reviews.judged_places(spec, asked, answers, progress)
            models[name] = _document(
                asked, answers, read[name], reviewed[name], languages, spec.parameters.most_refused
            )
            for place, found in reviewed[name].items():
                read[name][place] = {HEADLINE_PROFILE: Scored([], found.ratings)}
            readings.writelines(_trace(name, read[name], answers))
            judged.writelines(reviews.lines(name, reviewed[name]))
            progress.start("models", len(answered), unit="model", done=done)  # after a judge's own bar
    # Only now: by then every model's answers were put before the judge, and what it said is kept.
    reviews.hold_to(spec.most_judge_failures, reviewed)
    complete = all(model["complete"]["complete"] for model in models.values())
    document = {
        "languages": languages,
        "pivot_language": spec.parameters.pivot_language,
        "profiles": spec.parameters.profiles,
        "complete": complete,
        "models": models,
        "comparisons": _comparisons(read),
        "drift": drifted,
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (work.out / SCORES).write_text(text + "\n", encoding="utf-8")
    failed = [
        of_place["failed"] for model in models.values() for name in model if name in catalogue()
        for of_place in model[name].values() if "failed" in of_place
    ]  # fmt: skip
    return Outcome(
        metrics={
            "complete": complete,
            "judge": spec.judge.name,
            "judge_failure_rate": max(failed, default=0.0),
            "models": summary(models),
            "runs": earlier_runs(spec.output),
            **({"drift": drifted} if drifted else {}),
        },
        incomplete=reviews.left_open(reviewed, drifted),
    )


def check_questions(asked: Sequence[Asked], answers: Mapping[Key, Answer], *, where: Path) -> None:
    """Raises:
    BadInput: the answers are to other questions, other images, or another prompt than today's.
    """
    expected = {one.key: one for one in asked}
    for key, row in answers.items():
        one = expected.get(key)
        if one is None or row["image"] != one.image_sha256:
            what = f"the answer to {key} belongs to another benchmark"
        elif row["prompt"] != one.prompt_digest:
            what = f"the answer to {key} was given to another prompt"
        else:
            continue
        raise BadInput(
            what,
            where=manifest.file(where, answers_file.FILE),
            remedy="give the benchmark tables that the model was asked from, or ask it again with these",
        )


def _read(asked: Sequence[Asked], answers: Mapping[Key, Answer], profiles: Sequence[str]) -> OfModel:
    places: dict[Place, list[Asked]] = {}
    for one in asked:
        places.setdefault((one.benchmark, one.language), []).append(one)
    found: OfModel = {}
    for place, of_place in places.items():
        benchmark = catalogue()[place[0]]
        # A benchmark that has none of the wanted profiles is read by our own.
        wanted = [name for name in profiles if name in benchmark.readers] or [HEADLINE_PROFILE]
        if benchmark.readers:
            found[place] = {name: scoring.read(benchmark, name, of_place, answers) for name in wanted}
    return found


def _document(
    asked: Sequence[Asked],
    answers: Mapping[Key, Answer],
    read: OfModel,
    reviewed: Mapping[Place, Reviewed],
    languages: Sequence[str],
    most_refused: float,
) -> dict[str, Any]:
    found: dict[str, Any] = {"complete": completeness(asked, answers, most_refused=most_refused)}
    for (name, language), of_place in read.items():
        found.setdefault(name, {})[language] = scoring.document(catalogue()[name], of_place)
    for (name, language), of_judge in reviewed.items():
        found.setdefault(name, {})[language] = of_judge.document
    spoken = {language: spoken_language(asked, answers, language, languages) for language in languages}
    found["language"] = {language: one for language, one in spoken.items() if one is not None}
    across = {
        name: comparison.over_languages(
            {language: items for (of_name, language), items in _items(read).items() if of_name == name},
            _item_figure(name),
        )
        for name in dict.fromkeys(name for name, _ in read)
    }
    found["over_languages"] = {name: one for name, one in across.items() if one is not None}
    return found


def _items(read: OfModel) -> dict[Place, dict[str, Judged]]:
    """The items of each place under the first profile: the headline's, where it was asked for."""
    return {place: next(iter(of_place.values())).values for place, of_place in read.items()}


def _item_figure(benchmark: str) -> str:
    return catalogue()[benchmark].item_figure or catalogue()[benchmark].figures[0]


def _comparisons(read: Mapping[str, OfModel]) -> dict[str, Any]:
    items = {model: _items(of_model) for model, of_model in read.items()}
    found: dict[str, Any] = {}
    for place in dict.fromkeys(place for of_model in items.values() for place in of_model):
        having = {model: of_model[place] for model, of_model in items.items() if place in of_model}
        tests = comparison.between_models(having, _item_figure(place[0]))
        if tests:
            found.setdefault(place[0], {})[place[1]] = tests
    return found


def _trace(model: str, read: OfModel, answers: Mapping[Key, Answer]) -> Iterator[str]:
    """A JSON line per answer: what each profile read in it, how, and whether that is right."""
    for of_place in read.values():
        by_profile = {
            profile: {one.key: reading for one, reading in scored.rows}
            for profile, scored in of_place.items()
        }
        # Of a judged benchmark there are no rows: its reviews stand in a file of their own.
        for one, _ in next(iter(of_place.values())).rows:
            answer = answers.get(one.key)
            readings = {
                profile: [reading.said, reading.how, reading.right]
                for profile, found in by_profile.items()
                if (reading := found.get(one.key)) is not None
            }
            yield (
                json.dumps(
                    {"model": model, "key": one.key, "answer": answer and answer["answer"], "read": readings},
                    ensure_ascii=False,
                )
                + "\n"
            )


def summary(models: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The headline figures by model, such as "mmmb circular zh"; a judged one names its judge, since no other's compares."""
    found: dict[str, dict[str, float | None]] = {}
    for name, model in models.items():
        headlines: dict[str, float | None] = {}
        for benchmark in [one for one in model if one in catalogue()]:
            for language, scores in model[benchmark].items():
                top = scores[scores["headline"]]
                by = f" by {scores['judge']}" if "judge" in scores else ""
                headlines[f"{benchmark} {scores['headline']} {language}{by}"] = (
                    None if top is None else top["value"]
                )
        for language, spoken in model["language"].items():
            headlines[f"asked language {language}"] = spoken["asked"] and spoken["asked"]["value"]
        found[name] = headlines
    return found
