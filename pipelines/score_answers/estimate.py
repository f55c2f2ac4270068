"""What judging would cost, before anything is asked; also before the models have answered."""

from __future__ import annotations

from pipelines.benchmarks import answers as answers_file
from pipelines.benchmarks import judged, suite
from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import Asked
from pipelines.judge.judging import estimate
from pipelines.lake import manifest
from pipelines.remote.budget import NOTHING
from pipelines.score_answers import reviews
from pipelines.score_answers.spec import ScoreAnswersSpec


def estimated(spec: ScoreAnswersSpec) -> str:
    """Requests, tokens and money at most, without what was answered before, in words.

    The answers of a model that has not answered yet are taken to be as long as the references.

    Raises:
        BadInput: the benchmarks' files are not there yet, or an input cannot be read.
    """
    reviews.check_rules(spec)
    if spec.judge.server is None:
        return f"{spec.judge.name} asks no server"
    given = {
        name: answers_file.read(table) if manifest.exists(table) else None
        for name, table in spec.answers.items()
    }
    languages = {key[1] for answers in given.values() for key in answers or ()}
    asked = _judged_questions(spec, languages)
    total = NOTHING
    for place, of_place in reviews.questions_by_place(asked).items():
        benchmark = catalogue()[place[0]]
        by, rules = reviews.judge_of(spec, benchmark), reviews.rules_of(spec, benchmark)
        stand_ins = {one.key: answers_file.row(one, one.gold) for one in of_place}
        for answers in given.values():
            items = judged.judge_items(of_place, stand_ins if answers is None else answers)
            total += estimate(items, by, spec.judge_cache, rules=rules, conduct=spec.conduct) or NOTHING
    for name, path in spec.calibration.items():
        benchmark, pack = reviews.read_calibration(name, path)
        by, rules = reviews.calibrated(spec, benchmark), reviews.rules_of(spec, benchmark)
        items = [item for item, _ in pack]
        total += estimate(items, by, spec.judge_cache, rules=rules, conduct=spec.conduct) or NOTHING
    waiting = [name for name, answers in given.items() if answers is None]
    assumed = (
        f"; the answers of {', '.join(waiting)}, still to come, are taken to be as long as the references"
    )
    return f"{spec.judge.name}: {total.words()}{assumed if waiting else ''}"


def _judged_questions(spec: ScoreAnswersSpec, languages: set[str]) -> list[Asked]:
    """Those whose answers a judge rates, in these languages; in all there are where no model has answered."""
    files = Files(list(spec.benchmarks.values()))
    return [
        one
        for benchmark, language in suite.available(files)
        if benchmark.protocol is not None and (not languages or language in languages)
        for one in benchmark.questions(files, language)
    ]
