"""`python -m pipelines.dry_run RECIPE`: parameters, memory, tokens, operations and GPU-hours of a system."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from models.weights import WeightsError
from pipelines.dry_run.page import page
from pipelines.dry_run.reckon import TARGET_MFU, Rates, reckon
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.systems.recipe import read_system


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.dry_run", description=__doc__)
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="a system's recipe, such as recipes/parrot-7b.yaml"
    )
    parser.add_argument(
        "--mfu", type=_share, default=TARGET_MFU, metavar="SHARE",
        help=f"share of the GPUs' peak that the training reaches; measured, or the aim of {TARGET_MFU}",
    )  # fmt: skip
    parser.add_argument("--gpus", type=int, help="instead of the recipe's number")
    rates = Rates()
    parser.add_argument(
        "--images-per-second", type=_rate, default=rates.images, metavar="RATE",
        help=f"at which images are fetched; measured, or {rates.images:g}",
    )  # fmt: skip
    parser.add_argument(
        "--sentences-per-second", type=_rate, default=rates.sentences, metavar="RATE",
        help=f"at which texts are translated; measured, or {rates.sentences:g}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    arguments = parser.parse_args()
    try:
        system = read_system(arguments.recipe)
        if arguments.gpus is not None:
            if arguments.gpus < 1:
                raise BadInput(
                    "there is no training on less than one GPU", where="--gpus", remedy="give 1 or more"
                )
            hardware = system.hardware.model_copy(update={"gpus": arguments.gpus})
            system = system.model_copy(update={"hardware": hardware})
        rates = Rates(arguments.images_per_second, arguments.sentences_per_second)
        found = reckon(system, mfu=arguments.mfu, rates=rates)
    except (BadInput, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(BAD_INPUT_EXIT_CODE) from None
    print(json.dumps(asdict(found), indent=1) if arguments.json else page(system, found))


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return share


def _rate(text: str) -> float:
    rate = float(text)
    if not rate > 0:
        raise argparse.ArgumentTypeError(f"{text} is no rate above 0")
    return rate


if __name__ == "__main__":
    main()
