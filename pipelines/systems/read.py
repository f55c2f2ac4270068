"""Which kind of recipe a file is: a chain whose models are made here, or a published system."""

from __future__ import annotations

from pathlib import Path

from pipelines.documents import load_document
from pipelines.recipe import Recipe, read_recipe
from pipelines.systems.recipe import System, read_system


def read_any(path: Path) -> Recipe | System:
    """The recipe in a file. A system's says its `architecture`, or extends a file that does.

    Raises:
        BadInput: the file is missing or malformed; the message names each wrong or unknown key.
    """
    document = load_document(path)
    return read_system(path) if document.keys() & {"architecture", "extends"} else read_recipe(path)
