"""The command line that all stages share: `python -m pipelines.<stage> SPEC`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from pipelines.declaration import SpecT, Stage
from pipelines.documents import load
from pipelines.errors import BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE, BadInput, Interrupted
from pipelines.progress import Progress
from pipelines.stage import execute


def main(stage: Stage[SpecT]) -> None:
    """The command line of a stage: `python -m <module> SPEC`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {stage.module}", description=stage.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys of the spec:\n" + _describe(stage.spec_type),
    )  # fmt: skip
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the spec document, JSON or YAML")
    parser.add_argument("--schema", action=_PrintSchema, stage=stage, help="print the spec's JSON schema")
    if stage.estimate is not None:
        parser.add_argument(
            "--estimate",
            action="store_true",
            help="say what a run would ask servers for and cost, and do nothing",
        )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        spec = load(stage.spec_type, arguments.spec)
        if stage.estimate is not None and arguments.estimate:
            print(stage.estimate(spec))
            return
        made = execute(stage, spec)
    except BadInput as error:
        _end_with(stage, BAD_INPUT_EXIT_CODE, f"error: {error}")
    except (Interrupted, KeyboardInterrupt) as error:
        words = "stopped; run the same command to go on. Nothing half-made was published."
        _end_with(stage, INTERRUPTED_EXIT_CODE, f"{stage.name}: {f'{error}. ' if str(error) else ''}{words}")
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"data_version": made.data_version, "rows": made.rows, **made.metrics}))


def _end_with(stage: Stage[Any], code: int, words: str) -> NoReturn:
    """Exit with `code`, and leave it in the progress file too: torchrun exits with 1 whatever it was."""
    print(words, file=sys.stderr)
    Progress(stage.name).end(code, words)
    sys.exit(code)


class _PrintSchema(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, *, stage: Stage[Any], help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)
        self.stage = stage

    def __call__(self, *_: Any) -> None:
        print(json.dumps(self.stage.spec_type.model_json_schema(), indent=1))
        sys.exit(0)


def _describe(spec_type: type[BaseModel]) -> str:
    lines = []
    for name, info in spec_type.model_fields.items():
        default = (
            "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)!r}"
        )
        kind = getattr(info.annotation, "__name__", str(info.annotation))
        lines.append(f"  {name}: {kind} ({default})" + (f"  {info.description}" if info.description else ""))
    return "\n".join(lines)
