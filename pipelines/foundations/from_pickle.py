"""Published weights that are pickles, as safetensors: done once, knowingly, by a person.

    python -m pipelines.foundations.from_pickle SOURCE FOLDER

SOURCE is a folder of transformers, or a hub id (`lmsys/vicuna-7b-v1.5`, with `@revision` where one is pinned), whose
weights are `pytorch_model.bin`, or shards of it with their index. FOLDER is then named where SOURCE would stand: as
`weights.source` in a recipe, as `translation.translator`, as `filter.clip`. The pickles are read by torch's restricted
reader, which builds tensors and refuses everything else; of the stages, only those for BEiT-3, VisCPM and CPM-Bee read pickles.

Names, types and values stay as they are. Memory holds one file of the output, at most 5 GB of weights (or the largest
tensor, where that is more). A tensor that stands under several names is written once where transformers ties these
names by itself, and else once under each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import weights
from models.weights import INDEX_FILE, WEIGHTS_FILE, WeightsError
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 5_000_000_000
"""Of weights in a file of the output, as hubs have them."""
_BESIDE = ("*.json", "*.model", "*.txt")
"""What is copied: configuration and tokenizer, never code."""


def to_safetensors(source: str, output: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, int]:
    """Write the folder `output`: the weights of `source` as safetensors, and its other files; returns what was written.

    Raises:
        BadInput: the source cannot be found or is incomplete, its pickles hold anything but tensors, or `output`
            holds something already.
    """
    try:
        return _converted(source, output, most_bytes)
    except WeightsError as error:
        raise BadInput(error.message, where=error.where or source, remedy=error.remedy) from error


def _converted(source: str, output: Path, most_bytes: int) -> dict[str, int]:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BadInput(
            "there is something here already", where=output, remedy="give a folder that does not exist"
        )
    # Imported here: `--help` needs no torch.
    from models import pickled, tensors

    folder = weights.locate(source, patterns=[*_BESIDE, "pytorch_model*.bin"])
    if not folder.is_dir():
        raise BadInput(
            "this is a file", where=folder, remedy="give the folder that it is in, with its config.json"
        )
    if not any((folder / name).is_file() for name in (pickled.PICKLE_INDEX_FILE, pickled.PICKLE_FILE)):
        raise BadInput(
            f"it has no {pickled.PICKLE_FILE} and no {pickled.PICKLE_INDEX_FILE}", where=folder,
            remedy=f"where it has safetensors, name {source} itself; else give the folder as it was downloaded",
        )  # fmt: skip
    files = pickled.files_of(folder)
    weights.require(folder, ["config.json"])
    tied = _tied(folder)
    plan = [
        (path, names, part)
        for path, names in files.items()
        for part in _parts(_kept(pickled.tensors_of(path, names), tied), most_bytes)
    ]
    sizes = [sum(part.values()) for _, _, part in plan]
    progress = Progress("from_pickle")
    progress.start(f"{source} to safetensors", sum(len(part) for _, _, part in plan), unit="tensor")
    # Everything has its name at the end: a conversion that was ended leaves no folder that looks whole.
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    places: dict[str, str] = {}
    for number, (path, names, part) in enumerate(plan, start=1):
        name = WEIGHTS_FILE if len(plan) == 1 else f"model-{number:05d}-of-{len(plan):05d}.safetensors"
        found = pickled.tensors_of(path, names)
        # Copies: tensors that share their memory, or are views of it, cannot be written.
        tensors.save(unfinished / name, {one: found[one].clone() for one in part})
        places |= dict.fromkeys(part, name)
        progress.advance(len(part))
    progress.close()
    if len(plan) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(places.items()))}
        (unfinished / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for pattern in _BESIDE:
        for path in sorted(folder.glob(pattern)):
            if not path.name.endswith((".bin.index.json", INDEX_FILE)):
                shutil.copyfile(path, unfinished / path.name)
    if output.exists():
        output.rmdir()
    unfinished.replace(output)
    return {"tensors": len(places), "files": len(plan), "bytes": sum(sizes)}


def _tied(folder: Path) -> Mapping[str, str]:
    """Which names transformers ties to which when it loads such a model; {} of an architecture that it does not have."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        made: Any = getattr(transformers, (config.architectures or [""])[0], None)
        with torch.device("meta"):
            return {} if made is None else dict(made(config).all_tied_weights_keys)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _kept(found: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, int]:
    """The names that are written, with their bytes: all but those that are tied to another that has the same memory."""

    def memory(tensor: Tensor) -> tuple[Any, ...]:
        return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()

    return {
        name: tensor.nbytes
        for name, tensor in found.items()
        if name not in tied or tied[name] not in found or memory(found[tied[name]]) != memory(tensor)
    }


def _parts(sizes: Mapping[str, int], most_bytes: int) -> Iterator[dict[str, int]]:
    """The names in their order, in parts of at most so many bytes; a larger tensor is a part of its own."""
    part: dict[str, int] = {}
    for name, size in sizes.items():
        if part and sum(part.values()) + size > most_bytes:
            yield part
            part = {}
        part[name] = size
    if part:
        yield part


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.foundations.from_pickle", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", help="a folder, or a hub id such as lmsys/vicuna-7b-v1.5")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="is made; must not exist")
    told = parser.parse_args()
    try:
        made = to_safetensors(told.source, told.folder)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)
    except KeyboardInterrupt:
        print("stopped; nothing half-made has the folder's name", file=sys.stderr)
        sys.exit(130)
    print(
        f"{made['tensors']} tensors, {made['bytes'] / 1e9:.2f} GB, in {made['files']} files: "
        f"name {told.folder} where {told.source} would stand"
    )


if __name__ == "__main__":
    main()
