"""Published M2M-100 weights, which are a pickle, as safetensors: done once, knowingly, by a person.

    python -m pipelines.foundations.translator.from_pickle FOLDER OUTPUT

FOLDER is a copy of facebook/m2m100_418M or _1.2B with `pytorch_model.bin`. The pickle is read by torch's restricted
reader, which builds tensors and refuses everything else. Stages never read pickles.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput

PICKLE_FILE = "pytorch_model.bin"
_COPIED = ("*.json", "*.model", "*.txt")


def to_safetensors(source: Path, output: Path) -> None:
    """Write the folder `output`: the weights of `source` as safetensors, and its other files.

    Raises:
        BadInput: the source lacks a file, is no M2M-100, or its pickle holds anything but tensors.
    """
    if not (source / PICKLE_FILE).is_file():
        raise BadInput(
            f"there is no {PICKLE_FILE} in it", where=source, remedy="give the folder as it was downloaded"
        )
    # Imported here: `--help` needs neither.
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    try:
        tensors = torch.load(source / PICKLE_FILE, map_location="cpu", weights_only=True, mmap=True)
        network = M2M100ForConditionalGeneration(M2M100Config.from_pretrained(source))
        lacking, unknown = network.load_state_dict(tensors, strict=False)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(
            f"these weights cannot be taken over: {str(error).splitlines()[0]}",
            where=source / PICKLE_FILE,
            remedy="download the folder again; weights that need more than tensors are not safe to open",
        ) from None
    # The output layer is the embeddings; sinusoids are computed, and older files hold them.
    lacking = [name for name in lacking if name != "lm_head.weight" and "embed_tokens" not in name]
    unknown = [name for name in unknown if "embed_positions" not in name]
    if lacking or unknown:
        raise BadInput(
            f"this is not the M2M-100 that its config.json describes: {(lacking + unknown)[0]!r} does not fit",
            where=source,
            remedy="give weights and config.json of one model",
        )
    output.mkdir(parents=True, exist_ok=True)
    for pattern in _COPIED:
        for path in source.glob(pattern):
            (output / path.name).write_bytes(path.read_bytes())
    network.tie_weights()
    network.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        to_safetensors(arguments.folder, arguments.output)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)
    print(f"written to {arguments.output}: name it as `weights`")


if __name__ == "__main__":
    main()
