"""Making the visual module with seeded random weights; multimodal pretraining is what teaches it."""

from __future__ import annotations

from models.vision import VisionConfig
from models.vision_language import make_visual_module, save_visual_module
from models.weights import read_json
from pipelines.foundations.vision.spec import VisionSpec
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work


def run(spec: VisionSpec, work: Work, progress: Progress) -> Outcome:
    """Publish the module's folder."""
    width = read_json(manifest.file(spec.language_model, "config.json"))["hidden_size"]
    module = make_visual_module(VisionConfig(**spec.shape.model_dump()), width, seed=spec.seed)
    save_visual_module(module, work.out)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Outcome(metrics={"parameters": parameters, "queries": spec.shape.queries})
