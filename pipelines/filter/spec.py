"""The spec of the filter: the threshold and the other rules, each of which can be switched off."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.stage import InputTable, Stage, StageSpec, lazy

NAME = "filtered_pairs"
CODE_VERSION = "1"

HISTOGRAM_FILE, THUMBNAIL_FILE = "histogram.png", "histogram_small.png"


class FilterParameters(BaseModel):
    """The `filter` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(
        0.18, ge=-1, le=1, description="a pair is kept if its score is greater (V section 4.1)"
    )
    most_pairs_per_image: int | None = Field(
        50, ge=1,
        description="an image file under more pairs than this is a placeholder (V appendix G); null: no such rule",
    )  # fmt: skip


class FilterSpec(StageSpec):
    """Filter the pairs of a crawl."""

    raw_pairs: InputTable
    clip_scores: InputTable
    parameters: FilterParameters = FilterParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.filter",
    spec_type=FilterSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.filter.run:run"),
    summary="Keep the pairs whose Chinese-CLIP score is greater than a threshold.",
)
