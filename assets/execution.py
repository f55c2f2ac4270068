"""What a recipe says of how a stage's work is done: put into its spec when it is made, and checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from assets.stage_asset import StageAsset
from pipelines.errors import BadInput
from pipelines.fingerprint import execution_fields
from pipelines.recipe import Chain
from pipelines.stage import StageSpec

_OURS = frozenset({"processes", "cache", "judge_cache", "conduct", "takedown", "test_scores"})
"""Fields that the recipe says elsewhere, or that follow from it."""


def with_execution(recipe: Chain, assets: Iterable[StageAsset]) -> list[StageAsset]:
    """Each asset with the settings of its stage.

    Raises:
        BadInput: a stage or a setting does not exist, a value does not fit, or a setting would change the result.
    """
    found = list(assets)
    by_stage = {_name(asset): asset for asset in found}
    if unknown := recipe.execution.keys() - by_stage.keys():
        raise BadInput(
            f"no stage is called {', '.join(sorted(unknown))}",
            where="recipe: execution", remedy=f"name one of: {', '.join(sorted(by_stage))}",
        )  # fmt: skip
    told = {stage: _checked(by_stage[stage], given) for stage, given in recipe.execution.items()}
    return [
        replace(asset, spec=_with(asset.spec, told[_name(asset)])) if told.get(_name(asset)) else asset
        for asset in found
    ]


def _name(asset: StageAsset) -> str:
    return asset.stage.name.rpartition("/")[2]


def _with(spec: Callable[[str], StageSpec], settings: Mapping[str, Any]) -> Callable[[str], StageSpec]:
    return lambda crawl: spec(crawl).model_copy(update=dict(settings))


def _checked(asset: StageAsset, given: Mapping[str, Any]) -> dict[str, Any]:
    spec = asset.stage.spec_type
    where = f"recipe: execution.{_name(asset)}"
    allowed = sorted(set(execution_fields(spec)) - _OURS)
    if wrong := sorted(given.keys() - set(allowed)):
        raise BadInput(
            f"{', '.join(wrong)} cannot be set for this stage: only how its work is done, and not what comes of it",
            where=where, remedy=f"set one of: {', '.join(allowed)}" if allowed else "take it out: it has no such setting",
        )  # fmt: skip
    made = {}
    for name, value in given.items():
        field = spec.model_fields[name]
        kind: Any = Annotated[(field.annotation, *field.metadata)]  # type: ignore[misc, unused-ignore]
        try:
            made[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise BadInput(
                f"{value!r} is no value for it: {error.errors()[0]['msg']}",
                where=f"{where}.{name}", remedy=field.description or "correct it",
            ) from None  # fmt: skip
    return made
