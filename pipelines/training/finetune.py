"""Bilingual instruction tuning: visual module and language model learn the blend's answers."""

from __future__ import annotations

from collections import Counter

import torch

from models.lora import add_adapters
from models.vision_language import VisionLanguageModel, load
from pipelines.command_line import main
from pipelines.lake import manifest
from pipelines.model_card.origin import BASE, LICENSES, licenses
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.conversations import ShardSamples
from pipelines.training.gap import held_out_captions
from pipelines.training.loop import train
from pipelines.training.planning import plan_for
from pipelines.training.publish import publish_card, publish_model, weights_of
from pipelines.training.spec import FINETUNE, INSTRUCTIONS, FinetuneSpec
from pipelines.training.texts import InstructionTexts, ShardTexts


def run(spec: FinetuneSpec, work: Work, progress: Progress) -> Outcome:
    """Tune the pretrained model; publish the model folder and the loss curve."""
    with weights_of(spec.pretrained):
        model = _with_adapters(spec)
    shards = ShardTexts([spec.instructions])
    texts = InstructionTexts(shards, model.chat)
    samples = ShardSamples(shards, texts, model.visual.preprocess, model.visual.image_size)
    trained = train(
        model, samples, pad=model.pad_id, optimisation=spec.optimisation,
        work=work, progress=progress, what="instruction tuning",
        plan=plan_for(spec.plan, {INSTRUCTIONS: spec.instructions}),
        held_out=held_out_captions(
            spec.held_out, model, pivot=spec.pivot_language, prompts=spec.gap_prompts
        ),
    )  # fmt: skip
    # Training shares the weights out, and rounds those that it freezes to its precision.
    whole = _with_adapters(spec)
    told = None if spec.generation is None else spec.generation.model_dump()
    publish_model(whole, trained.weights, work.out, told)
    languages = Counter(name for index in range(len(shards)) for name in texts.languages(index))
    metrics = {
        **trained.metrics,
        "samples_by_language": dict(sorted(languages.items())),
        "answers_not_learned": sum(map(texts.answers_not_learned, range(len(shards)))),
        LICENSES: licenses([spec.pretrained, spec.instructions]),
        BASE: manifest.read(spec.pretrained).metrics.get(BASE, {}),
    }
    publish_card(whole, FINETUNE, "instruction tuning", sorted(languages), spec, metrics, work.out)
    return Outcome(metrics=metrics)


def _with_adapters(spec: FinetuneSpec) -> VisionLanguageModel:
    """The pretrained model, with new adapters in its language model where the recipe asks for them."""
    model = load(manifest.folder(spec.pretrained))
    if spec.lora is not None:
        # Both times alike: what training adds to is what is published.
        torch.manual_seed(spec.optimisation.seed)
        add_adapters(model.language_model, spec.lora)
    return model


if __name__ == "__main__":
    main(FINETUNE)
