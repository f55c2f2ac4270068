"""The card of a model as it is published: all that is known then, and nothing that another run of the same would not say.

No time, no path and no machine's name stands in it, so equal trainings have equal cards, and a table's data
version means what it did without them. Scores come later (`pipelines.model_card.scores`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from models.parts import trained_parts
from models.vision_language import VisionLanguageModel
from pipelines.fingerprint import input_versions
from pipelines.lake.identity import file_sha256
from pipelines.model_card.markdown import FILE, SCORES_BEGIN, SCORES_END, escaped, table
from pipelines.model_card.origin import UNKNOWN
from pipelines.training.spec import Optimisation, TrainingSpec

_NAMED = (
    "optimizer", "steps", "batch_size", "warmup_steps", "final_fraction", "weight_decay", "betas",
    "gradient_clipping", "zero_stage", "pack_tokens", "mixture", "seed",
)  # fmt: skip
"""What of the training's section decides the weights, and is worth a line."""


@dataclass(frozen=True)
class Made:
    """A training and what it was made of."""

    stage: str
    code_version: str
    what: str
    languages: Sequence[str]
    spec: TrainingSpec
    metrics: Mapping[str, Any]
    licenses: Mapping[str, str]
    base: Mapping[str, Mapping[str, Any]]
    """Part -> what it started from (`origin.base_weights`)."""


def write(model: VisionLanguageModel, made: Made, folder: Path) -> None:
    """Write the card beside the model's files, which are all there."""
    (folder / FILE).write_text(text(model, made, folder), encoding="utf-8")


def text(model: VisionLanguageModel, made: Made, folder: Path) -> str:
    """The card: front matter as model hubs read it, then Markdown."""
    sections = [
        f"# A vision-language model: {made.what}",
        f"It answers questions about images in {', '.join(made.languages)}. Made by the stage `{made.stage}`, code version"
        f" {made.code_version}, of a factory for multilingual vision-language models after the MpM recipe"
        " ([arXiv:2308.12038](https://arxiv.org/abs/2308.12038)).",
        "## Parts\n\n" + _parts(model, made.spec.optimisation),
        "## Training\n\n" + _training(made),
        "## Data\n\n" + _data(made),
        "## Base weights\n\n" + _base(made.base),
        f"## Scores\n\n{SCORES_BEGIN}\nScores are made after a model is published: the report's card of this model has them.\n{SCORES_END}",
        "## Use\n\n```\npython -m pipelines.chat --model FOLDER --image FILE\n```\n\n"
        "It says what its data made likely, which may be wrong; it was not tested for what harm its answers could do.",
        "## Files\n\n" + _files(folder),
    ]
    return f"---\n{_front_matter(made).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(made: Made) -> ModelCardData:
    sources = [str(one["source"]) for one in made.base.values() if "/" in str(one.get("source", ""))]
    return ModelCardData(
        language=list(made.languages),
        # Who publishes the model decides that; what it was made of is listed under Data and Base weights.
        license=UNKNOWN,
        pipeline_tag="image-text-to-text",
        tags=["vision-language", "multilingual", made.stage],
        base_model=sources or None,
    )


def _parts(model: VisionLanguageModel, optimisation: Optimisation) -> str:
    trained = trained_parts(model, optimisation.learning_rates)
    rows = []
    for part, named in model.parts().items():
        count = sum(parameter.numel() for _, parameter in named)
        rates = ", ".join(f"{rate:g}" for rate in trained[part].rates) if part in trained else "frozen"
        rows.append((f"`{part}`", f"{count:,}", rates))
    image = f"An image is {model.visual.image_size} x {model.visual.image_size} pixels and {model.image_tokens} tokens."
    template = f"The chat template is `{model.template}`."
    return table(("part", "parameters", "peak learning rate"), rows) + f"\n\n{image} {template}"


def _training(made: Made) -> str:
    settings = made.spec.optimisation.model_dump(mode="json", include=set(_NAMED))
    rows = [(name.replace("_", " "), _plain(settings[name])) for name in _NAMED]
    rows += [
        (name.replace("_", " "), _plain(made.metrics[name]))
        for name in ("precision", "samples", "epochs", "skipped_steps", "final_loss", "data_plan")
        if name in made.metrics
    ]
    for name, value in made.metrics.items():
        if name.startswith(("likelihood: ", "pivot gap: ")):
            rows.append((name, _plain(value)))
    return table(("", ""), rows)


def _data(made: Made) -> str:
    versions = [(f"`{name}`", f"`{version}`") for name, version in input_versions(made.spec).items()]
    known = table(("source", "license"), [(escaped(one), escaped(of)) for one, of in made.licenses.items()])
    return (
        "Every input by its data version, a digest of its content:\n\n"
        + table(("input", "data version"), versions)
        + "\n\nLicenses, as the sources' manifests give them:\n\n"
        + (known if made.licenses else "No input says.")
    )


def _base(base: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for part, found in base.items():
        if "source" in found:
            digest = f"`{found['sha256']}`" if found.get("sha256") else "not pinned"
            rows.append((f"`{part}`", escaped(found["source"]), digest, f"{UNKNOWN} here: its source says"))
        else:
            origin = f"made here, stage `{found['stage']}`"
            rows.append((f"`{part}`", origin, f"data version `{found['data_version']}`", "none given"))
    return table(("part", "source", "digest", "license"), rows)


def _files(folder: Path) -> str:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / FILE]
    return table(
        ("file", "bytes", "SHA-256"),
        [
            (f"`{path.relative_to(folder).as_posix()}`", f"{path.stat().st_size:,}", f"`{file_sha256(path)}`")
            for path in paths
        ],
    )


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{escaped(key)} {_plain(one)}" for key, one in value.items()) or "none"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:g}"
        if isinstance(value, float)
        else escaped(value)
    )
