"""What a stage author declares: a spec, the fields of it that are inputs, what runs, what comes out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from pipelines.lake.ledger import Ledger
from pipelines.lake.work import Work
from pipelines.progress import Progress

TABLE_MARK, FILE_MARK, EXECUTION_MARK = "input table", "input file", "execution"

InputTable = Annotated[Path, TABLE_MARK]
"""A spec field of this type is a table that the stage reads: its data version counts."""
InputFile = Annotated[Path, FILE_MARK]
"""A spec field of this type is a file, or a folder of files, that the stage reads: its content counts."""
Execution = EXECUTION_MARK
"""`Annotated[int, Execution]`: how the work is run (processes, ports); never changes the result."""


class StageSpec(BaseModel):
    """What a stage is told. Subclasses add inputs (`InputTable`, `InputFile`) and parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path
    """The folder of the table that the stage publishes."""
    processes: Annotated[int, Execution] = 1
    """Ranks of a distributed stage; started by torchrun."""

    def files_of(self, folder: str) -> Collection[str] | None:
        """Which files the stage reads of an `InputFile` that is a folder, by path below it; None: whatever is there.

        `folder`: the field's name. What is not read does not count, and costs no hashing.
        """
        return None


PART_INDEX_VARIABLE, PART_COUNT_VARIABLE = "PART_INDEX", "PART_COUNT"
"""Set where this process does one of several independent parts of a stage that can be divided."""

Reach = Literal["store", "web", "servers"]
"""What a stage's process opens connections to: where its tables are, besides it the web, or servers of language
models (and the web). On a cluster, network policies hold it to that."""

SpecT = TypeVar("SpecT", bound=StageSpec)


@dataclass(frozen=True)
class Outcome:
    """What a run leaves besides its files."""

    ledger: Ledger | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values that a person reads: counts, rates, scores."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows per file, by path below `out/`; other files have none."""
    incomplete: str = ""
    """What is lacking that another run may bring, in words: the table is published, and the next run makes it again."""


@dataclass(frozen=True)
class Stage(Generic[SpecT]):
    """A stage of the factory.

    `code_version` is raised by hand when a change of code changes the result: only then is
    finished work done again.
    """

    name: str
    module: str
    spec_type: type[SpecT]
    code_version: str
    run: Callable[[SpecT, Work, Progress], Outcome]
    summary: str
    resumable: bool = False
    """Whether `run` can go on from what an earlier, killed run left in the work folder."""
    divisible: bool = False
    """Whether several processes can each do a part of the work: `run` then does the shards `index::count` that
    the environment names (`PART_INDEX`, `PART_COUNT`), and leaves them in the work folder. Needs `resumable`:
    a last run, without these, finds all parts done and publishes."""
    imports: tuple[str, ...] = ()
    """Packages that its work takes seconds to import. On one machine a run imports them once for all its jobs."""
    stable_names: tuple[str, ...] = ()
    """Files that people open, or folders of them: also put directly under `output`, after the publish."""
    reach: Callable[[SpecT], Reach] = lambda _: "store"
    """Whether work by this spec reads the web or asks servers. The tables that the spec names are there."""
    estimate: Callable[[SpecT], str] | None = None
    """What a run would cost, in words, without a request; for stages that ask paid servers."""


TORCH = ("torch", "transformers.modeling_utils", "torch.distributed.launcher.api")
"""What a stage imports that runs a model."""
DEEPSPEED = (*TORCH, "deepspeed")
"""What a stage imports that trains one in a group of ranks."""


def lazy(target: str) -> Callable[..., Any]:
    """The function `package.module:name`, imported when it is first called.

    A stage is declared beside its spec, which the web UI loads; what runs it imports torch.
    """
    module, name = target.split(":")

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments)

    return call
