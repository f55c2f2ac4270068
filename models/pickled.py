"""Checkpoints that are pickles of tensors, in one file or in shards with an index.

They are read by torch's restricted reader (`weights_only=True`), which builds tensors and plain containers, runs no
code of the file and refuses what would need it. Files are mapped: a tensor's bytes are read when they are used.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.weights import WeightsError, read_json, require

PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
_WRAPPERS = ("model", "state_dict", "module")
"""Keys under which trainers put the weights, beside what else they keep."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name.

    Raises:
        WeightsError: the file is damaged or holds more than tensors.
    """
    try:
        # Files as torch wrote them before 1.6 cannot be mapped.
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"this is no checkpoint that can be read safely: {reason}", where=path,
            remedy="fetch it again from where its authors publish it, or give safetensors",
        ) from error  # fmt: skip
    for key in _WRAPPERS:
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    if not isinstance(document, Mapping):
        raise WeightsError("this checkpoint holds more than tensors: it is no dictionary", where=path)
    for name, value in document.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"this checkpoint holds more than tensors: {name!r} is a {type(value).__name__}", where=path,
                remedy="give a file with the weights alone",
            )  # fmt: skip
    return dict(document)


def files_of(folder: Path) -> dict[Path, frozenset[str] | None]:
    """The files that a folder's weights are in, in order, each with the names that its index says it has.

    Of a folder without an index this is `pytorch_model.bin`, with None.

    Raises:
        WeightsError: there is neither, or the index is malformed or names what is not there.
    """
    index = folder / PICKLE_INDEX_FILE
    if not index.is_file():
        require(folder, [PICKLE_FILE])
        return {folder / PICKLE_FILE: None}
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError("this index has no weight_map", where=index, remedy="copy the file again")
    shards: dict[str, set[str]] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise WeightsError(
                f"it says that {name} is in {shard!r}, which is no file beside it", where=index,
                remedy="copy the file again",
            )  # fmt: skip
        shards.setdefault(shard, set()).add(name)
    require(folder, sorted(shards))
    return {folder / shard: frozenset(names) for shard, names in sorted(shards.items())}


def tensors_of(path: Path, names: frozenset[str] | None) -> dict[str, Tensor]:
    """The tensors of one of `files_of`, held against the names that the index says.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or others than the index says.
    """
    found = read(path)
    if names is not None and names != found.keys():
        lacking, strange = sorted(names - found.keys()), sorted(found.keys() - names)
        problem = f"lacks {lacking[0]}" if lacking else f"has {strange[0]}, which the index does not name"
        raise WeightsError(
            f"this shard and its index are not of one model: it {problem}", where=path,
            remedy="copy the whole folder again, all files in the same revision",
        )  # fmt: skip
    return found


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder whose weights are pickles, mapped.

    Raises:
        WeightsError: as `files_of` and `tensors_of`.
    """
    found: dict[str, Tensor] = {}
    for path, names in files_of(folder).items():
        found |= tensors_of(path, names)
    return found
