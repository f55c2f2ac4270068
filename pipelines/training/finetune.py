"""Bilingual instruction tuning: visual module and language model learn the blend's answers."""

from __future__ import annotations

from collections import Counter

from models.vision_language import load
from pipelines.command_line import main
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.conversations import ShardSamples
from pipelines.training.gap import held_out_captions
from pipelines.training.loop import train
from pipelines.training.planning import plan_for
from pipelines.training.publish import publish_model, weights_of
from pipelines.training.spec import FINETUNE, INSTRUCTIONS, FinetuneSpec
from pipelines.training.texts import InstructionTexts, ShardTexts


def run(spec: FinetuneSpec, work: Work, progress: Progress) -> Outcome:
    """Tune the pretrained model; publish the model folder and the loss curve."""
    with weights_of(spec.pretrained):
        model = load(manifest.folder(spec.pretrained))
    shards = ShardTexts([spec.instructions])
    texts = InstructionTexts(shards, model.chat)
    samples = ShardSamples(shards, texts, model.visual.preprocess, model.visual.image_size)
    trained = train(
        model.train(), samples, pad=model.pad_id, optimisation=spec.optimisation,
        work=work, progress=progress, what="instruction tuning",
        plan=plan_for(spec.plan, {INSTRUCTIONS: spec.instructions}),
        held_out=held_out_captions(
            spec.held_out, model, pivot=spec.pivot_language, prompts=spec.gap_prompts
        ),
    )  # fmt: skip
    # Training shares the weights out, and rounds those that it freezes to its precision.
    publish_model(load(manifest.folder(spec.pretrained)), trained.weights, work.out)
    languages = Counter(name for index in range(len(shards)) for name in texts.languages(index))
    return Outcome(metrics={**trained.metrics, "samples_by_language": dict(sorted(languages.items()))})


if __name__ == "__main__":
    main(FINETUNE)
