"""The completed card: the one that a model was published with, and its scores, which came later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pipelines.errors import BadInput
from pipelines.model_card.markdown import SCORES_BEGIN, SCORES_END, escaped, table
from pipelines.report.benchmark_results import Cell, Leaderboard
from pipelines.report.results import Score, language_name


def completed(
    published: str, name: str, boards: Sequence[Leaderboard], asked: Mapping[str, Score],
    versions: Mapping[str, str], *, recipe: str | None = None, where: str,
) -> str:  # fmt: skip
    """A card with scores, in its text and as the `model-index` that model hubs show.

    Args:
        published: the card beside the model.
        name: of the model, as in the boards.
        asked: by language, the share of answers in it.
        versions: of the tables that the scores were made of, by name.
        recipe: the name of what the model was made by.

    Raises:
        BadInput: `published` is no card of this project; `where` is its place.
    """
    before, begin, rest = published.partition(SCORES_BEGIN)
    _, end, after = rest.partition(SCORES_END)
    if not begin or not end:
        raise BadInput(
            "this model card has no place for scores", where=where, remedy="run the stage that makes the model again"
        )  # fmt: skip
    card = ModelCard(f"{before}{_scores(name, boards, asked, versions)}{after}")
    data = cast(ModelCardData, card.data)
    data.model_name = name
    data.eval_results = list(_results(name, boards))
    body = card.text.replace("# A vision-language model", f"# {escaped(name)}, a vision-language model", 1)
    if recipe is not None:
        # The one that a model is published with says how, and not for whom: others' recipes may share the model.
        body = body.replace("\n## Parts\n", f"\nIts recipe is `{recipe}`.\n\n## Parts\n", 1)
    return f"---\n{data.to_yaml()}\n---\n{body.rstrip()}\n"


def _measured(name: str, board: Leaderboard) -> Mapping[str, Cell]:
    return next((row.cells for row in board.rows if row.model == name and not row.published), {})


def _scores(
    name: str, boards: Sequence[Leaderboard], asked: Mapping[str, Score], versions: Mapping[str, str]
) -> str:
    rows = [
        (board.title, board.figure, language_name(language), _interval(cell), board.unit)
        for board in boards
        for language, cell in _measured(name, board).items()
    ]
    rows += [
        ("Answers", "in the asked language", language_name(language), _share(score), "%")
        for language, score in asked.items()
    ]
    notes = dict.fromkeys(board.note for board in boards if board.note and _measured(name, board))
    made_of = ", ".join(f"`{table}` `{version}`" for table, version in versions.items())
    return "\n\n".join(
        [
            table(("benchmark", "figure", "language", "score, 95 % interval", "unit"), rows),
            *notes,
            f"Made of these tables, by their data versions: {made_of}.",
        ]
    )


def _interval(cell: Cell) -> str:
    bounds = "" if cell.low is None or cell.high is None else f" [{cell.low:.1f}, {cell.high:.1f}]"
    return f"{cell.value:.1f}{bounds}"


def _share(score: Score) -> str:
    return _interval(Cell(value=100 * score.value, low=100 * score.low, high=100 * score.high))


def _results(name: str, boards: Sequence[Leaderboard]) -> Iterable[EvalResult]:
    for board in boards:
        for language, cell in _measured(name, board).items():
            yield EvalResult(
                task_type="image-text-to-text",
                dataset_type=board.benchmark,
                dataset_name=f"{board.title}, {language_name(language)}",
                dataset_config=language,
                metric_type=board.figure.replace(" ", "_"),
                metric_name=f"{board.figure}, {board.unit}",
                metric_value=cell.value,
            )
