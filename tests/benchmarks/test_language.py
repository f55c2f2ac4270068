"""Language detection: right on what models answer, silent where nothing can be told."""

from __future__ import annotations

import pytest

from pipelines.benchmarks.language import OTHER, detect

SIX = ["en", "zh", "pt", "ar", "tr", "ru"]


@pytest.mark.parametrize(
    ("text", "languages", "found"),
    [
        ("red", ["en", "zh"], "en"),
        ("on the left", ["en", "zh"], "en"),
        ("红色", ["en", "zh"], "zh"),
        ("大", ["en", "zh"], "zh"),
        ("图片的左边是两个小的绿色圆形，右边是一个大的蓝色正方形。", ["en", "zh"], "zh"),
        ("答案是A", ["en", "zh"], "zh"),
        ("красный", ["en", "zh"], OTHER),
        ("красный круг", SIX, "ru"),
        ("دائرة حمراء", SIX, "ar"),
        ("The circles are on the left side of the picture", SIX, "en"),
        ("Os círculos estão do lado esquerdo da imagem", SIX, "pt"),
        ("Daireler resmin sol tarafında", SIX, "tr"),
    ],
)
def test_the_language_is_found(text: str, languages: list[str], found: str) -> None:
    assert detect(text, languages) == found


@pytest.mark.parametrize("text", ["", "A", "B.", "12", "OK", "?!", "Ａ。", "红色 circle"])
def test_it_abstains_where_nothing_can_be_told(text: str) -> None:
    assert detect(text, ["en", "zh"]) is None
