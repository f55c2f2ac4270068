"""Multimodal pretraining: the visual module learns to make a frozen language model write captions.

By default only captions in the pivot language are read (MpM paper, section 3.1): what the model can do in
another language afterwards it got from the language model alone.
"""

from __future__ import annotations

from models.vision_language import assemble
from pipelines.command_line import main
from pipelines.lake import manifest
from pipelines.model_card.origin import BASE, LICENSES, base_weights, licenses
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.conversations import ShardSamples
from pipelines.training.gap import held_out_captions
from pipelines.training.loop import train
from pipelines.training.planning import plan_for
from pipelines.training.publish import publish_card, publish_model, weights_of
from pipelines.training.spec import PRETRAIN, PretrainSpec, caption_languages, caption_prompts
from pipelines.training.texts import CaptionTexts, ShardTexts


def run(spec: PretrainSpec, work: Work, progress: Progress) -> Outcome:
    """Train the visual module; publish the model folder and the loss curve."""
    with weights_of(spec.language_model, spec.vision):
        model = assemble(manifest.folder(spec.language_model), manifest.folder(spec.vision))
    shards = ShardTexts(list(spec.shards.values()))
    texts = CaptionTexts(
        shards, model.chat, caption_languages(spec), caption_prompts(spec), spec.optimisation.seed
    )
    trained = train(
        model, ShardSamples(shards, texts, model.visual.preprocess, model.visual.image_size), pad=model.pad_id,
        optimisation=spec.optimisation, work=work, progress=progress, what="multimodal pretraining",
        plan=plan_for(spec.plan, spec.shards),
        held_out=held_out_captions(
            spec.plan, model, pivot=spec.pivot_language, prompts={spec.pivot_language: spec.prompts[0], **spec.gap_prompts}
        ),
    )  # fmt: skip
    # Training shares the weights out and rounds the frozen ones to its precision: publish those as they were.
    whole = assemble(manifest.folder(spec.language_model), manifest.folder(spec.vision))
    publish_model(whole, trained.weights, work.out)
    languages = sorted(set(caption_languages(spec)))
    metrics = {
        **trained.metrics,
        "language": "+".join(languages),
        LICENSES: licenses(spec.shards.values()),
        BASE: {
            "language_model": base_weights("language_model", spec.language_model),
            "vision": base_weights("vision", spec.vision),
        },
    }
    publish_card(whole, PRETRAIN, "multimodal pretraining", languages, spec, metrics, work.out)
    return Outcome(metrics=metrics)


if __name__ == "__main__":
    main(PRETRAIN)
