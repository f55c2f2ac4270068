"""How a published model's answers are looked for: the settings that travel with it, in the file that transformers reads.

Imports no torch. Of the file, only these are used here; others that a hub's model brings, such as a temperature, stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.chat_folder import LANGUAGE_FOLDER
from models.weights import WeightsError, read_json

GENERATION_FILE = "generation_config.json"
BEAMS, LENGTH_PENALTY, REPETITION_PENALTY = "num_beams", "length_penalty", "repetition_penalty"


def write_generation(folder: Path, settings: Mapping[str, Any]) -> None:
    """Put settings, by transformers' names, into a model's folder; those that are there and not named stay."""
    path = folder / LANGUAGE_FOLDER / GENERATION_FILE
    before = read_json(path) if path.is_file() else {}
    path.write_text(json.dumps({**before, **settings}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_generation(folder: Path) -> dict[str, Any]:
    """Beams and penalties of a model's folder; {} where it names none.

    Raises:
        WeightsError: the file is no JSON object, or a value is no number above 0.
    """
    path = folder / LANGUAGE_FOLDER / GENERATION_FILE
    document = read_json(path) if path.is_file() else {}
    found = {
        name: document[name]
        for name in (BEAMS, LENGTH_PENALTY, REPETITION_PENALTY)
        if document.get(name) is not None
    }
    for name, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (name != LENGTH_PENALTY and value <= 0) or (name == BEAMS and value != int(value)):
            raise WeightsError(f"{name} is {value!r}", where=path, remedy="correct the file")
    return found
