"""The page: results and images into one self-contained HTML file. Nothing in it is fetched from anywhere."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.report import benchmarks, cards, charts
from pipelines.report.results import Results, Score, SharePoint, language_name, score_of
from pipelines.report.spec import CARDS

STAGE_TITLES = {
    "raw_pairs": "Downloaded",
    "clip_scores": "Scored by Chinese-CLIP",
    "filtered_pairs": "Kept by the filter",
    "translations": "Translated",
    "training_shards": "In training shards",
}
MODEL_TITLES = {
    "pretrained": "Pretrained",
    "english_only": "English-only tuning",
    "blend": "Blend",
}
DIMENSIONS = {
    "domain": "Top domains",
    "shorter side": "Resolution: shorter side, pixels",
    "characters": "Caption length, characters",
    "language": "Language of the caption",
}
KINDS = {
    "kept": "Kept",
    "borderline": "Borderline: nearest to the threshold",
    "dropped": "Dropped",
}
VERDICTS = {
    "right": "✓",
    "other_language": "✓ in another language",
    "wrong": "✗",
    "unresolved": "? no answer found",
}
PANELS = (
    ("mmmb", "circular", "Four options, circular", "Right in every rotation of the options.", 0.80),
    ("open", "content", "Open questions, content", "The right thing is named, in whatever language.", None),
    (
        "language",
        "asked",
        "Answers in the asked language",
        "Of the open answers whose language can be told.",
        0.99,
    ),
)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}".replace(",", " "),
        "percent": lambda value: "–" if value is None else f"{value:.1%}",
        "language": language_name,
        "stage": lambda name: STAGE_TITLES.get(name, name.replace("_", " ")),
        "words": lambda name: str(name).replace("_", " "),
        "score": show_score,
    }
    return environment


def show_score(score: Score | dict[str, Any] | None) -> str:
    """A share with its 95 % interval, short."""
    if score is None:
        return "–"
    found = score if isinstance(score, Score) else Score.model_validate(score)
    return f"{found.value:.1%} [{found.low * 100:.0f}, {found.high * 100:.0f}]"


def render(results: Results, images: dict[str, bytes], thumbnails: dict[str, bytes]) -> str:
    """The HTML page; `images` are the gallery's, by sha256, and `thumbnails` the sampled pairs', by uid."""
    return _environment().get_template("page.html.j2").render(
        results=results,
        experiment_languages=_experiment_languages(results),
        panels=_panels(results),
        coloured=bool(_colours(results)),
        title_of=lambda name: model_title(results, name),
        verdicts=VERDICTS,
        histograms={
            name: charts.histogram(crawl.histogram, x_label="Chinese-CLIP score (cosine)")
            for name, crawl in results.crawls.items()
            if crawl.histogram is not None
        },
        curves={
            curve.name: charts.loss_curve(curve.name, curve.steps, curve.losses)
            for curve in results.curves
            if curve.steps
        },
        shares={language: _share_chart(points) for language, points in results.shares.items() if points},
        images={digest: _data_url(content) for digest, content in images.items()},
        thumbnails={uid: _data_url(content) for uid, content in thumbnails.items()},
        cards=cards.named(results),
        cards_folder=CARDS,
        dimensions=DIMENSIONS,
        kinds=KINDS,
        drifts={source: charts.drift(points) for source, points in results.drift.items()},
        seconds=sum(table.seconds for table in results.tables),
        **benchmarks.drawn(results),
    )  # fmt: skip


def model_title(results: Results, name: str) -> str:
    """What a person calls the model: its place in the experiment, or its share in a sweep."""
    for language, points in results.shares.items():
        for point in points:
            if point.model == name:
                return f"{point.share * 100:g}% {language_name(language)}"
    return MODEL_TITLES.get(name, name.replace("_", " "))


def _panels(results: Results) -> list[dict[str, Any]]:
    """The charts of the scores, models in the order in which they were given; without languages that nobody was measured in,
    and without a chart where that leaves none.
    """
    models = results.scores["models"]
    panels = []
    for benchmark, figure, title, note, aim in PANELS:
        measured = [
            language
            for language in sorted(results.languages, key=lambda one: one != results.pivot_language)
            if any(score_of(model, benchmark, language, figure) is not None for model in models.values())
        ]
        rows = [
            (
                model_title(results, name),
                [
                    (language_name(language), score_of(model, benchmark, language, figure))
                    for language in measured
                ],
            )
            for name, model in models.items()
        ]
        if measured:
            chart = charts.dots(rows, aim=aim, colours=_colours(results))
            panels.append({"title": title, "note": note, "chart": chart})
    return panels


def _colours(results: Results) -> dict[str, str]:
    """A colour per language; none where there are more languages than colours."""
    if len(results.languages) > len(charts.COLOURS):
        return {}
    return {
        language_name(one): colour for one, colour in zip(results.languages, charts.COLOURS, strict=False)
    }


def _experiment_languages(results: Results) -> list[str]:
    """The languages in which every model was asked both kinds of question of the world."""
    models = results.scores["models"].values()
    return [
        language
        for language in results.languages
        if all(language in model.get(kind, {}) for model in models for kind in ("mmmb", "open", "language"))
    ]


def _share_chart(points: Sequence[SharePoint]) -> Markup:
    return charts.share_curves(
        [
            (point.share, [("asked", point.asked), ("content", point.content), ("circular", point.circular)])
            for point in points
        ]
    )


def _data_url(content: bytes) -> str:
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
