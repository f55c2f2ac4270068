"""Documents that people write (recipes, specs, manifests): YAML or JSON, checked whole at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.errors import BadInput
from pipelines.lake import location

ModelT = TypeVar("ModelT", bound=BaseModel)


def load(model: type[ModelT], path: Path) -> ModelT:
    """The document (JSON or YAML) at `path` as `model`.

    Raises:
        BadInput: the file is missing, is not such a document, or has a key that is wrong or unknown.
    """
    return validated(model, load_document(path), where=path)


def load_document(path: Path) -> dict[str, Any]:
    """The mapping in a JSON or YAML file.

    Raises:
        BadInput: the file is missing, is not UTF-8 YAML, or holds no mapping.
    """
    try:
        document = yaml.safe_load(location.read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise BadInput("the file does not exist", where=path, remedy="check the path") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            f"the file is not YAML in UTF-8: {error}", where=path, remedy="mend the line named above"
        ) from None
    if not isinstance(document, dict):
        raise BadInput(
            "the file holds no mapping of keys to values", where=path, remedy="write `key: value` lines"
        )
    return document


def validated(model: type[ModelT], document: dict[str, Any], *, where: Path) -> ModelT:
    """The document as `model`.

    Raises:
        BadInput: names each wrong or unknown key, and the keys that exist beside an unknown one.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"]
            if problem["type"] == "extra_forbidden":
                message = "unknown key"
            problems.append(f"{key}: {message}")
        raise BadInput(
            "this document is not valid:\n    " + "\n    ".join(problems),
            where=where,
            remedy=f"known keys at the top: {', '.join(model.model_fields)}",
        ) from None
