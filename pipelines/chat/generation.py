"""How an answer is looked for, and who says so: the command, a system's recipe, or what the model itself brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.generation import BEAMS, LENGTH_PENALTY, REPETITION_PENALTY
from models.vision_language import VisionLanguageModel
from pipelines.errors import BadInput
from pipelines.systems.recipe import read_system

VISCPM = Path(__file__).parents[2] / "recipes" / "viscpm-chat.yaml"
"""How a CPM-Bee model is asked where nobody says otherwise."""
LONGEST_ANSWER = 512


@dataclass(frozen=True)
class Asked:
    """What the command says of it; None leaves it to the recipe or the model."""

    system: Path | None = None
    beams: int | None = None
    max_new_tokens: int | None = None
    repetition_penalty: float | None = None
    temperature: float = 0.0


@dataclass(frozen=True)
class Generation:
    """Settings of one answer."""

    beams: int = 1
    max_new_tokens: int = LONGEST_ANSWER
    repetition_penalty: float | None = None
    """None: as the language model's own generation_config.json says."""
    length_penalty: float | None = None
    temperature: float = 0.0
    """0: the likeliest token each time, or the best beam; above: tokens are drawn."""

    @property
    def streams(self) -> bool:
        """Whether words can be shown as they come. Which beam is best is only known at the end."""
        return self.beams == 1

    def settings(self) -> dict[str, Any]:
        """Further arguments of the model's `generate_ids`."""
        found: dict[str, Any] = {}
        if self.repetition_penalty is not None:
            found["repetition_penalty"] = self.repetition_penalty
        if self.length_penalty is not None and self.beams > 1:
            found["length_penalty"] = self.length_penalty
        if self.temperature > 0:
            found |= {"do_sample": True, "temperature": self.temperature}
        return found


def generation_for(
    model: VisionLanguageModel, asked: Asked, travels: Mapping[str, Any] | None = None
) -> Generation:
    """The settings for a model: the command's, else those of the system's recipe, else those that travel with the model.

    Raises:
        BadInput: a value is out of range, the recipe is wrong, or the model cannot do what is asked.
    """
    _check(asked)
    own, travels = model.template == "cpm_bee", travels or {}
    recipe = asked.system or (VISCPM if own and not travels else None)
    inference = None if recipe is None else read_system(recipe).inference
    made = Generation(
        beams=asked.beams or (inference.beams if inference else int(travels.get(BEAMS, 1))),
        max_new_tokens=asked.max_new_tokens or (inference.max_new_tokens if inference else LONGEST_ANSWER),
        repetition_penalty=asked.repetition_penalty
        or (inference.repetition_penalty if inference else travels.get(REPETITION_PENALTY)),
        length_penalty=inference.length_penalty if inference else travels.get(LENGTH_PENALTY),
        temperature=asked.temperature,
    )
    if made.temperature > 0 and own:
        raise BadInput(
            "CPM-Bee answers greedily or by beams, and does not sample",
            where="--temperature", remedy="leave --temperature out",
        )  # fmt: skip
    return made


def _check(asked: Asked) -> None:
    for option, value, least in (
        ("--beams", asked.beams, 1),
        ("--max-new-tokens", asked.max_new_tokens, 1),
        ("--repetition-penalty", asked.repetition_penalty, 1),
        ("--temperature", asked.temperature, 0),
    ):
        if value is not None and not value >= least:
            raise BadInput(f"{value} is too small", where=option, remedy=f"give {least} or more")
