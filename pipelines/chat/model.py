"""The model of a folder that somebody names: a table that training published, or a copy of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from models import vision_language
from models.backbone import CONFIG_FILE
from models.chat_folder import LANGUAGE_FOLDER
from models.generation import read_generation
from models.tensors import cast
from models.vision_language import VISION_CONFIG_FILE, VisionLanguageModel
from models.weights import WeightsError
from pipelines.answer.answerer import device
from pipelines.errors import BadInput
from pipelines.lake import location, manifest

NEEDED = (VISION_CONFIG_FILE, f"{LANGUAGE_FOLDER}/{CONFIG_FILE}")
AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
REMEDY = "give the table of a pretrained or tuned model, such as data/quickstart/finetuned/blend"


def load(path: Path, dtype: str = AUTO) -> VisionLanguageModel:
    """The model, on the GPU where there is one; its weights of a type of `DTYPES`, or in bf16 on a GPU and as they are on a CPU.

    Raises:
        BadInput: there is no such folder, it holds no model of this project, or a file of it does not fit.
    """
    folder = folder_of(path)
    where = device()
    if dtype == AUTO:
        dtype = "bfloat16" if where.type == "cuda" else "float32"
    try:
        model = vision_language.load(folder)
        # Before it moves: a GPU may have no room for it twice as large.
        cast(model, DTYPES[dtype])
        return model.to(where)
    except (WeightsError, SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadInput(
            f"the model cannot be loaded: {error}",
            where=path, remedy="run the stage that makes it again, or copy its whole folder again",
        ) from error  # fmt: skip


def settings_of(path: Path) -> dict[str, Any]:
    """Beams and penalties that travel with the model.

    Raises:
        BadInput: they are no such settings.
    """
    try:
        return read_generation(folder_of(path))
    except WeightsError as error:
        raise BadInput(error.message, where=error.where, remedy=error.remedy) from None


def folder_of(path: Path) -> Path:
    """The folder with the model's files.

    Raises:
        BadInput: there is none.
    """
    if not location.is_remote(path) and not path.is_dir():
        raise BadInput("there is no such model folder", where=path, remedy=REMEDY)
    folder = manifest.folder(path) if manifest.exists(path) else path
    lacking = [name for name in NEEDED if not (folder / name).is_file()]
    if lacking:
        raise BadInput(
            f"this folder is no model: it lacks {', '.join(lacking)}", where=path, remedy=_instead(path)
        )
    return folder


def _instead(path: Path) -> str:
    if location.is_remote(path):
        return REMEDY
    below = [one for one in sorted(path.iterdir()) if one.is_dir() and manifest.exists(one)]
    models = [one for one in below if (manifest.data_root(one) / VISION_CONFIG_FILE).is_file()]
    return f"give one of {', '.join(map(str, models))}" if models else REMEDY
