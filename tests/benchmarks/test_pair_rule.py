"""The paper's rule of pairs (a yes and a no question about an image), where a published benchmark has pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark_files.spec import STAGE, BenchmarkFilesSpec
from pipelines.stage import execute
from tests.benchmarks import published
from tests.benchmarks.scored import scores

YES_NO_QUESTIONS = {
    "en": ("Is there a {} in the picture?", ("dog", "cat"), ("Yes", "No")),
    "zh": ("图中有{}吗？", ("狗", "猫"), ("有", "没有")),
    "pt": ("Há um {} na imagem?", ("cão", "gato"), ("Sim", "Não")),
    "ar": ("هل يوجد {} في الصورة؟", ("كلب", "قط"), ("نعم", "لا يوجد")),
    "tr": ("{} resimde var mı?", ("Köpek", "Kedi"), ("Var", "Yok")),
    "ru": ("На картинке есть {}?", ("собака", "кошка"), ("Да", "Нет")),
}
"""Questions that share their first words in some languages, in others none."""


def yes_no_table(
    path: Path, pairs: int, *, singles: int = 0, language: str = "en", of_image: int = 2
) -> None:
    """Pairs of a yes and a no question, `of_image` questions about an image, and single ones."""
    question, things, words = YES_NO_QUESTIONS[language]
    rows: list[list[str]] = []

    def add(image: int, question: str, options: tuple[str, ...], answer: str) -> None:
        rows.append(
            [str(len(rows)), published.encoded(image), question, "", *options, answer, "existence", "test"]
        )

    for number in range(2 * pairs):
        add(number // of_image, question.format(things[number % 2]), words, "AB"[number % 2])
    for single in range(singles):
        add(90 + single, "Which?", ("one", "two"), "A")
    columns = ["index", "image", "question", "hint", "A", "B", "answer", "category", "split"]
    published.tsv(path, columns, rows, quoted=False)


def pair_scores(folder: Path, language: str = "en", **table: int) -> dict[str, Any]:
    """Scores of a model that is right on the first four items, and says A to the others."""
    yes_no_table(folder / f"mmmb_{language}.tsv", 10, language=language, **table)
    made = folder / "table"
    files = {f"mmmb_{language}.tsv": folder / f"mmmb_{language}.tsv"}
    execute(STAGE, BenchmarkFilesSpec(output=made, benchmark="mmmb", files=files))
    found = scores({"mmmb": made}, folder, lambda asked: asked.gold if asked.item in "0123" else "A")
    figures: dict[str, Any] = found["models"]["model"]["mmmb"][language]["profiles"]["robust"]
    return figures


@pytest.mark.parametrize(("singles", "has_pairs"), [(0, True), (1, True), (4, False)])
def test_the_papers_pair_rule_is_scored_where_the_data_has_pairs(
    tmp_path: Path, singles: int, has_pairs: bool
) -> None:
    figures = pair_scores(tmp_path, singles=singles)
    assert ("pair" in figures) is has_pairs
    if has_pairs:
        # Every yes is right as published, of the no only two.
        assert figures["pair"]["value"] == 0.2 and figures["pair"]["n"] == 10
        assert figures["plain"]["value"] == pytest.approx((4 + 8 + singles) / (20 + singles), abs=1e-4)


@pytest.mark.parametrize("language", YES_NO_QUESTIONS)
def test_pairs_are_found_in_every_language(tmp_path: Path, language: str) -> None:
    assert pair_scores(tmp_path, language)["pair"]["n"] == 10


def test_more_than_two_questions_about_an_image_make_no_pairs(tmp_path: Path) -> None:
    assert "pair" not in pair_scores(tmp_path, of_image=4)
