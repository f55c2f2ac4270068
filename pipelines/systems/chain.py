"""A system's recipe as the stages take it: the chain of its crawls, what each crawl is read for, and the trainer's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadInput
from pipelines.foundations.clip.spec import ClipParameters
from pipelines.foundations.translator.spec import TranslatorParameters
from pipelines.recipe import Chain, Limits, Translation
from pipelines.systems.recipe import System, Training
from pipelines.training.spec import Generation, Optimisation

TRAINERS_OWN = (
    "data_workers", "fused_kernels", "compile", "not_finite", "most_skipped", "checkpoint_every",
    "checkpoints_kept", "keep_every",
)  # fmt: skip
"""What a recipe's stage tells the trainer by the trainer's own names."""
EVERY_SCORE = -1.0
"""A threshold below all cosines."""


@dataclass(frozen=True)
class CrawlUse:
    """What a training stage reads of a crawl."""

    crawl: str
    source: str
    language: str
    """That the crawl comes in."""
    languages: tuple[str, ...]
    """That are trained on."""
    rows: int | None = None
    """That are taken in; none: what its manifest says."""

    @property
    def translated(self) -> list[str]:
        """The languages that it must be translated into."""
        return [language for language in self.languages if language != self.language]

    @property
    def identifier(self) -> str:
        """The crawl's name as Dagster takes it."""
        return self.crawl.replace("-", "_")


def crawl_uses(training: Training) -> list[CrawlUse]:
    """Every crawl of a stage's blend, in the recipe's order."""
    return [
        CrawlUse(crawl, name, source.own_language, tuple(source.languages), source.rows)
        for name, source in training.sources.items()
        for crawl in source.crawls
    ]


def captions_in_every_language(system: System) -> bool:
    """Whether pretraining reads captions of the same images in all languages, some of which then give the pivot gap."""
    every = {system.pivot_language, *system.target_languages}
    return any(every <= set(use.languages) for use in crawl_uses(system.pretraining))


def gap_crawl(system: System) -> CrawlUse | None:
    """The crawl of which captions are held out and translated for the pivot gap, if any are."""
    crawls = system.pivot_crawls
    if captions_in_every_language(system) or not system.pivot_gap.captions or not crawls:
        return None
    chosen = system.pivot_gap.crawl or crawls[0]
    return next(use for use in crawl_uses(system.pretraining) if use.crawl == chosen)


def translated_languages(system: System) -> list[str]:
    """The languages that anything is translated into: crawls, a benchmark's questions, or captions for the pivot gap."""
    wanted = [
        language
        for training in system.stages.values()
        for use in crawl_uses(training)
        for language in use.translated
    ]
    wanted += [
        language for source in system.benchmarks.sources.values() for language in source.translate_into
    ]
    if gap_crawl(system) is not None:
        wanted += system.target_languages
    return list(dict.fromkeys(wanted))


def chain(system: System, *, native: bool = False) -> Chain:
    """The chain from crawls to scores. `native`: for pairs in a target language, of which the filter keeps those that fit."""
    limits = system.limits
    if not native:
        limits = Limits(keep_rate=(limits.keep_rate[0], 1.0), keep_rate_drift=limits.keep_rate_drift)
    translation, rules = system.translation, system.filter.rules
    return Chain(
        name=system.identifier,
        description=system.description,
        workspace=system.folder,
        crawls_folder=system.crawls_folder,
        pivot_language=system.pivot_language,
        target_languages=system.target_languages,
        processes=system.hardware.gpus,
        download=system.download,
        clip=ClipParameters(weights=system.filter.clip),
        score=system.score,
        facts=system.facts,
        decontamination_tables=system.decontamination_tables,
        screening=system.screening,
        filter=rules if native else rules.model_copy(update={"threshold": EVERY_SCORE}),
        limits=limits,
        translation=Translation(
            guard=translation.guard,
            decoding=translation.decoding,
            conduct=translation.conduct,
            least_bleu=translation.least_bleu,
            test_sets=translation.test_sets if translated_languages(system) else [],
            captions_per_chunk=translation.captions_per_chunk,
        ),
        shards=system.shards,
        benchmarks=system.benchmarks,
        execution=system.execution,
        resources=system.resources,
    )


def translator(system: System) -> TranslatorParameters:
    """The translator's settings.

    Raises:
        BadInput: a language model shall translate, and nothing says where it is.
    """
    told = system.translation
    if told.language_model is not None and told.server is None:
        raise BadInput(
            f"the language model {told.language_model!r} shall translate, and its server is not named",
            where=f"recipe {system.name}: translation.server",
            remedy="name the server (docs/translation.md), or set `translation.language_model` to null: then "
            f"{told.translator} translates",
        )
    return TranslatorParameters(
        weights=told.translator if told.server is None or told.server.languages else None,
        server=told.server,
        pivot_language=system.pivot_language,
        target_languages=translated_languages(system),
    )


def mixture(training: Training) -> dict[str, float]:
    """The weights of a stage's sources; {}: every sample comes equally often."""
    return {name: source.weight for name, source in training.sources.items() if source.weight is not None}


def generation(system: System) -> Generation:
    """How the model answers."""
    told = system.inference
    return Generation(
        num_beams=told.beams, max_new_tokens=told.max_new_tokens, repetition_penalty=told.repetition_penalty,
        length_penalty=told.length_penalty,
    )  # fmt: skip


def optimisation(training: Training, *, gpus: int = 1, **settings: Any) -> Optimisation:
    """What the trainer is told of a recipe's stage. `settings`: further ones, such as the `mixture` of its tables.

    `gpus` decides only how the work is shared: settings of another number have the same fingerprint, and the
    same pack plan, so that a training goes on where it was.
    """
    rows = training.batch_size // gpus
    packed = training.pack_tokens is not None
    return Optimisation(
        steps=training.total_steps,
        batch_size=training.batch_size,
        # Of packed rows, one at a time: `per_gpu` counts samples.
        micro_batch=None if packed else min(training.per_gpu or rows, rows),
        pack_tokens=training.pack_tokens,
        sample_tokens=training.text_tokens,
        packs_multiple=training.packs_multiple if packed else 1,
        learning_rates=training.learning_rates,
        warmup_steps=training.warmup,
        final_fraction=0.0 if training.schedule == "cosine" else 1.0,
        weight_decay=training.weight_decay,
        betas=training.betas,
        gradient_clipping=training.gradient_clipping,
        zero_stage=training.zero_stage,
        precision=training.precision,
        activation_checkpointing=training.gradient_checkpointing,
        **{name: getattr(training, name) for name in TRAINERS_OWN},
        **settings,
    )
