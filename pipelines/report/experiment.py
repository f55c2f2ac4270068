"""The experiment in words and aims: what the paper claims, and what this run's scores say to it.

"V" is the paper of MpM and VisCPM (Hu et al., "Large Multilingual Models Pivot Zero-Shot Multimodal
Learning across Languages"). The three models of the experiment go by fixed names.
"""

from __future__ import annotations

from typing import Any

from pipelines.report.results import (
    Aim,
    Crawl,
    Finding,
    Score,
    SharePoint,
    Translation,
    language_name,
    score_of,
)

PRETRAINED, PIVOT_ONLY, BLEND = "pretrained", "english_only", "blend"

LEAST_PRECISION = LEAST_RECALL = 0.95
LEAST_BLEU = 60.0
LEAST_ZERO_SHOT = 0.60
LEAST_CIRCULAR = 0.80
LEAST_ASKED = 0.99


def percent(score: Score | None) -> str:
    """A share as people read it, with its 95 % interval."""
    if score is None:
        return "not measured"
    return f"{score.value:.1%} ({score.low:.0%} to {score.high:.0%})"


def findings(scores: dict[str, Any], *, pivot: str) -> list[Finding]:
    """What is claimed and what is shown, per other language, for those of the three models that were scored."""
    models = scores["models"]
    found = []
    for language in [one for one in scores["languages"] if one != pivot]:
        if PRETRAINED in models:
            found.append(_after_pretraining(models[PRETRAINED], pivot, language))
        if PIVOT_ONLY in models:
            found.append(_after_pivot_only(models, pivot, language))
        if BLEND in models:
            found.append(_after_blend(models[BLEND], pivot, language))
    return found


def _after_pretraining(model: dict[str, Any], pivot: str, language: str) -> Finding:
    name, pivot_name = language_name(language), language_name(pivot)
    right = score_of(model, "open", language, "content_in_asked_language")
    at_home = score_of(model, "open", pivot, "content_in_asked_language")
    return Finding(
        title=f"After pretraining on {pivot_name} pairs alone",
        claim=f"A model whose vision was aligned with {pivot_name} captions only also sees in {name}.",
        source="V, abstract and section 3.2",
        shows=f"Of {name} questions about unseen images, {percent(right)} are answered rightly and in {name};"
        f" of {pivot_name} ones, {percent(at_home)}. No {name} image-text pair was ever shown.",
        figure=_short(right),
        label=f"{name} questions right",
        agrees=right is not None and right.value >= LEAST_ZERO_SHOT,
    )


def _after_pivot_only(models: dict[str, Any], pivot: str, language: str) -> Finding:
    name, pivot_name = language_name(language), language_name(pivot)
    asked = score_of(models[PIVOT_ONLY], "language", language, "asked")
    content = score_of(models[PIVOT_ONLY], "open", language, "content")
    before = score_of(models[PRETRAINED], "language", language, "asked") if PRETRAINED in models else None
    then = f" (before tuning: {percent(before)})" if before else ""
    return Finding(
        title=f"After tuning on {pivot_name} instructions alone",
        claim=f"Tuned on {pivot_name} only, the model answers {name} questions rightly, but in {pivot_name}"
        " (“quasi-zero-shot”).",
        source="V, sections 3.2 and D.4",
        shows=f"{percent(asked)} of the answers to {name} questions are in {name}{then};"
        f" in whatever language, {percent(content)} name the right thing.",
        figure=_short(asked),
        label=f"of answers in {name}",
        agrees=asked is not None and asked.high < LEAST_ASKED,
    )


def _after_blend(model: dict[str, Any], pivot: str, language: str) -> Finding:
    name, pivot_name = language_name(language), language_name(pivot)
    asked = score_of(model, "language", language, "asked")
    circular = score_of(model, "mmmb", language, "circular")
    at_home = score_of(model, "mmmb", pivot, "circular")
    enough = all(
        score is not None and score.value >= least
        for score, least in ((asked, LEAST_ASKED), (circular, LEAST_CIRCULAR))
    )
    return Finding(
        title=f"After tuning on the blend with translated {name}",
        claim=f"A share of translated instructions makes the model answer {name} in {name}, as well as it"
        f" answers {pivot_name}.",
        source="V, section D.4 and Fig. 5",
        shows=f"{percent(asked)} of the answers to {name} questions are in {name}. Circular accuracy:"
        f" {name} {percent(circular)}, {pivot_name} {percent(at_home)}.",
        figure=_short(asked),
        label=f"of answers in {name}",
        agrees=enough,
    )


def _short(score: Score | None) -> str:
    return "n/a" if score is None else f"{score.value:.0%}"


def aims(
    scores: dict[str, Any], *, pivot: str, crawls: dict[str, Crawl], translation: Translation | None
) -> list[Aim]:
    """Every aim of the run, reached or not; those whose models or tables are not there are left out."""
    listed = []
    for name, crawl in crawls.items():
        if crawl.quality is not None:
            listed.append(_aim(f"Filter precision, crawl {name}", LEAST_PRECISION, crawl.quality.precision))
            listed.append(_aim(f"Filter recall, crawl {name}", LEAST_RECALL, crawl.quality.recall))
    if translation is not None:
        for language, bleu in translation.bleu.items():
            listed.append(_aim(f"Held-out BLEU into {language_name(language)}", LEAST_BLEU, bleu))
    models, languages = scores["models"], scores["languages"]
    if PRETRAINED in models:
        for language in [one for one in languages if one != pivot]:
            found = score_of(models[PRETRAINED], "open", language, "content_in_asked_language")
            title = f"Zero-shot {language_name(language)} after {language_name(pivot)}-only pretraining"
            listed.append(_scored(title, LEAST_ZERO_SHOT, found))
    if BLEND in models:
        for language in languages:
            found = score_of(models[BLEND], "mmmb", language, "circular")
            listed.append(
                _scored(
                    f"Circular accuracy after the blend, {language_name(language)}", LEAST_CIRCULAR, found
                )
            )
        for language in languages:
            found = score_of(models[BLEND], "language", language, "asked")
            title = f"Answers in the asked language after the blend, {language_name(language)}"
            listed.append(_scored(title, LEAST_ASKED, found))
    return listed


def _aim(name: str, aim: float, value: float | None) -> Aim:
    return Aim(name=name, aim=aim, value=value, score=None, reached=None if value is None else value >= aim)


def _scored(name: str, aim: float, score: Score | None) -> Aim:
    value = None if score is None else score.value
    return Aim(name=name, aim=aim, value=value, score=score, reached=None if value is None else value >= aim)


def shares(scores: dict[str, Any], share_of: dict[str, float], *, pivot: str) -> dict[str, list[SharePoint]]:
    """V's Fig. 5, per language: models in the order of the share of that language in their tuning."""
    if not share_of:
        return {}
    return {
        language: [
            SharePoint(
                model=name,
                share=share,
                asked=score_of(scores["models"][name], "language", language, "asked"),
                content=score_of(scores["models"][name], "open", language, "content"),
                circular=score_of(scores["models"][name], "mmmb", language, "circular"),
            )
            for name, share in sorted(share_of.items(), key=lambda pair: pair[1])
        ]
        for language in scores["languages"]
        if language != pivot
    }
