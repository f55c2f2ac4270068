"""The spec of the filter: the threshold and the other rules, each of which can be switched off."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.facts.spec import Language
from pipelines.stage import InputFile, InputTable, Stage, StageSpec, lazy

NAME = "filtered_pairs"
CODE_VERSION = "4"

HISTOGRAM_FILE, THUMBNAIL_FILE = "histogram.png", "histogram_small.png"
STATISTICS_PICTURE, GALLERY_PICTURE = "statistics.png", "gallery.png"
STATISTICS_FILE, GALLERY_FILE = "statistics.parquet", "gallery.parquet"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CaptionRules(_Section):
    """What a caption must be; null switches a rule off. All but the lengths need the table of facts."""

    languages: list[Language] | None = Field(
        None, description="languages that are kept, as lingua tells them; null: any"
    )
    least_confidence: float = Field(
        0.5, ge=0, le=1, description="a language told with less is no reason to drop a pair"
    )
    fewest_characters: int | None = Field(None, ge=1)
    most_characters: int | None = Field(None, ge=1)
    most_repeated: float | None = Field(
        None, ge=0, le=1, description="share of neighbouring words that came before in the caption"
    )
    drop_cut: bool = Field(False, description="drop captions that break off")
    most_pairs: int | None = Field(
        None,
        ge=1,
        description="a caption that stands under more pairs than this says nothing about its image",
    )

    @model_validator(mode="after")
    def _lengths_leave_room(self) -> Self:
        low, high = self.fewest_characters, self.most_characters
        if low is not None and high is not None and low > high:
            raise ValueError(f"fewest_characters {low} is more than most_characters {high}")
        return self

    @property
    def of_facts(self) -> list[str]:
        """The rules, of those that are on, that need the table of facts."""
        on = {
            "languages": self.languages is not None,
            "most_repeated": self.most_repeated is not None,
            "drop_cut": self.drop_cut,
        }
        return [f"captions.{name}" for name, is_on in on.items() if is_on]


class ConversationRules(_Section):
    """What a conversation must be, of all that is said in it; null switches a rule off. All but the lengths need facts.

    The rules about captions, scores, placeholders and near-duplicates are for pairs: they do not apply to conversations.
    """

    languages: list[Language] | None = Field(
        None, description="languages that are kept, as lingua tells them; null: any"
    )
    least_confidence: float = Field(
        0.5, ge=0, le=1, description="a language told with less is no reason to drop a conversation"
    )
    fewest_characters: int | None = Field(None, ge=1)
    most_characters: int | None = Field(None, ge=1)
    most_repeated: float | None = Field(
        None, ge=0, le=1, description="share of neighbouring words that came before in the conversation"
    )

    @property
    def of_facts(self) -> list[str]:
        """The rules, of those that are on, that need the table of facts."""
        on = {"languages": self.languages is not None, "most_repeated": self.most_repeated is not None}
        return [f"conversations.{name}" for name, is_on in on.items() if is_on]


class FilterParameters(_Section):
    """The `filter` section of a recipe."""

    threshold: float = Field(
        0.18, ge=-1, le=1, description="a pair is kept if its score is greater (V section 4.1)"
    )
    most_urls_per_image: int | None = Field(
        50, ge=1,
        description="an image file under more URLs than this is a placeholder (V appendix G); null: no such rule",
    )  # fmt: skip
    captions: CaptionRules = CaptionRules()
    conversations: ConversationRules = ConversationRules()
    most_nsfw: float | None = Field(
        None, ge=0, le=1, description="a pair whose score in `screening.nsfw_scores` is greater is dropped"
    )
    without_nsfw_score: Literal["keep", "drop"] = Field(
        "keep", description="what becomes of a pair that the NSFW scores say nothing about"
    )
    blocked_hash_bits: int = Field(
        4, ge=0, le=8, description="bits in which an image may differ from a blocked perceptual hash"
    )
    drop_benchmark_images: bool = Field(True, description="needs `facts.decontamination`")
    drop_benchmark_texts: bool = Field(True, description="needs `facts.decontamination`")
    drop_hash_duplicates: bool = Field(True, description="needs `facts.near_duplicates.hash_bits`")
    drop_cosine_duplicates: bool = Field(True, description="needs `facts.near_duplicates.cosine`")


class FilterSpec(StageSpec):
    """Filter the pairs of a crawl, or its conversations."""

    raw_pairs: InputTable
    clip_scores: InputTable | None = Field(None, description="of a crawl of pairs; conversations have none")
    pair_facts: InputTable | None = Field(None, description="needed by the rules that say so")
    takedown: InputTable | None = Field(None, description="the takedown list: what it names is dropped")
    blocked_urls: list[InputFile] = Field([], description="text files, a URL a line; # begins a comment")
    blocked_domains: list[InputFile] = Field(
        [], description="text files, a domain a line; its subdomains are blocked too"
    )
    blocked_images: list[InputFile] = Field(
        [], description="text files, a hash a line: SHA-256 (64 hex digits) or pHash (16)"
    )
    nsfw_scores: list[InputFile] = Field(
        [], description="parquet files with `uid`, `url` or `image_sha256`, and `nsfw` from 0 to 1"
    )
    parameters: FilterParameters = FilterParameters()

    @model_validator(mode="after")
    def _rules_have_what_they_need(self) -> Self:
        needing = [*self.parameters.captions.of_facts, *self.parameters.conversations.of_facts]
        if self.pair_facts is None and (rules := needing):
            raise ValueError(f"{', '.join(rules)}: needs `pair_facts`, and none is given")
        if self.parameters.most_nsfw is not None and not self.nsfw_scores:
            raise ValueError("most_nsfw: needs `nsfw_scores`, and none is given")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.filter",
    spec_type=FilterSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.filter.run:run"),
    summary="Keep the pairs that score above a threshold, or the conversations, that no rule drops.",
)
