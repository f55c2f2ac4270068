"""The stage that makes a pack plan: which samples are trained on when, before a single image is read.

Only texts are read, and tokens counted, so a plan is made in minutes where a training takes days; and what it
says (how often each source comes, how full the rows are) can be looked at before anything is spent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.command_line import main
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.buckets import hash_keys
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.measuring import AT_ONCE, measured
from pipelines.training.order import make_order
from pipelines.training.plan import PLAN_FILE, Measures, PackPlan, read_plan, write_plan
from pipelines.training.spec import PLAN, PlanSpec
from pipelines.training.texts import ShardTexts

HELD_OUT_FILE = "held_out.parquet"
HELD_OUT = pa.schema([("uid", pa.string()), ("image", pa.binary()), ("captions", pa.string())])
"""`captions`: JSON, language -> caption."""
PADDED_ROWS = 16
"""Samples of a row-padded batch that the padding of a plan is compared with."""


def run(spec: PlanSpec, work: Work, progress: Progress) -> Outcome:
    """Write `plan.arrow` and `held_out.parquet`."""
    shards = ShardTexts(list(spec.shards.values()))
    held_out = _rows_held_out(spec, shards)
    held_out_uids = {row["uid"] for row in held_out}
    measures, kept, dropped, not_learned = measured(spec, len(shards), held_out_uids, progress)
    parts: dict[str, list[np.ndarray]] = {}
    for number, name in enumerate(spec.shards):
        table = shards.of_table(number)
        part = kept[(kept >= table.start) & (kept < table.stop)]
        parts.setdefault(spec.sources.get(name, name), []).append(part)
    sources = {name: np.concatenate(of_source) for name, of_source in parts.items()}
    _check(spec, sources)
    progress.start("packing", unit="step")
    write_plan(
        work.out / PLAN_FILE, make_order(sources, spec.mixture, spec.seed), measures, steps=spec.steps,
        batch_size=spec.batch_size, pack_tokens=spec.pack_tokens, multiple=spec.packs_multiple,
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(held_out, HELD_OUT), work.out / HELD_OUT_FILE)
    plan = read_plan(work.out / PLAN_FILE)
    metrics = _metrics(spec, plan, measures, sources)
    if spec.kind == "conversations":
        metrics["answers_not_learned"] = not_learned
        if not_learned:
            progress.say(
                f"{not_learned:,} answers before the last of their conversation are context, and not learned"
            )
    return Outcome(
        ledger=Ledger(rows_in=len(shards), kept=len(kept), dropped=dict(sorted(dropped.items()))),
        metrics=metrics,
        rows={PLAN_FILE: plan.table.num_rows, HELD_OUT_FILE: len(held_out)},
    )


def _rows_held_out(spec: PlanSpec, shards: ShardTexts) -> list[dict[str, Any]]:
    """The rows of HELD_OUT: those that were held out and translated before, or the plan's own choice."""
    if spec.held_out_captions is not None:
        rows: list[dict[str, Any]] = pq.read_table(
            manifest.file(spec.held_out_captions, HELD_OUT_FILE), schema=HELD_OUT
        ).to_pylist()
        return rows
    return [
        {"uid": shards.uid(index), "image": shards.image(index), "captions": json.dumps(captions, ensure_ascii=False)}
        for index, captions in _held_out(spec, shards).items()
    ]  # fmt: skip


def _held_out(spec: PlanSpec, shards: ShardTexts) -> dict[int, dict[str, str]]:
    """Place -> captions of the samples that are never trained on: first by hash among those that have every language."""
    if spec.kind != "captions" or not spec.held_out:
        return {}
    languages = [spec.pivot_language, *spec.target_languages]
    wanted = min(spec.held_out, len(shards) // 10)
    found: dict[int, dict[str, str]] = {}
    seen: set[str] = set()
    for index in _by_hash(spec, shards):
        if len(found) == wanted:
            break
        uid, captions = shards.uid(index), shards.document(index)["captions"]
        # A table that is read in two languages is there twice.
        if uid not in seen and all(language in captions for language in languages):
            seen.add(uid)
            found[index] = {language: captions[language] for language in languages}
    return found


def _by_hash(spec: PlanSpec, shards: ShardTexts) -> Iterator[int]:
    """The samples' places in the order of their uids' hashes; memory holds 16 bytes per sample."""
    keys = np.concatenate(
        [
            hash_keys((shards.uid(one) for one in range(start, min(start + AT_ONCE, len(shards)))), spec.seed)
            for start in range(0, len(shards), AT_ONCE)
        ]
    )
    # Stable: equal uids, and the one pair in 2^64 of others, stay in the order of the tables.
    yield from map(int, np.argsort(keys, kind="stable"))


def _check(spec: PlanSpec, sources: Mapping[str, np.ndarray]) -> None:
    if unknown := sorted(spec.mixture.keys() - sources.keys()):
        raise BadInput(
            f"the mixture names {', '.join(unknown)}, of which there are no shards",
            where="optimisation.mixture",
            remedy=f"sources that there are: {', '.join(sorted(sources))}",
        )
    drawn = {name for name, weight in spec.mixture.items() if weight > 0} or set(sources)
    empty = sorted(name for name in drawn if not len(sources[name]))
    if empty and (spec.mixture or len(empty) == len(sources)):
        raise BadInput(
            f"no sample of {', '.join(empty)} can be trained on",
            where=", ".join(
                str(table) for name, table in spec.shards.items() if spec.sources.get(name, name) in empty
            ),
            remedy="look at the ledger of the shards; longer packs take longer samples",
        )


def _metrics(
    spec: PlanSpec, plan: PackPlan, measures: Measures, sources: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    tokens = plan.table["tokens"].to_numpy()
    steps = plan.table["step"].to_numpy()
    drawn = np.concatenate(list(_samples(plan)))
    found: dict[str, Any] = {
        "digest": plan.digest,
        "steps": plan.steps,
        "samples_per_step": spec.batch_size,
        "tokens_per_step": round(float(tokens.sum()) / plan.steps, 1),
        "supervised_share": round(float(plan.table["supervised"].to_numpy().sum() / tokens.sum()), 4),
        "images_per_step": round(float(plan.table["images"].to_numpy().sum()) / plan.steps, 2),
        "epochs": {
            name: round(float(np.isin(drawn, places).sum() / len(places)), 3)
            for name, places in sources.items()
            if len(places)
        },
        "padding_of_padded_rows": round(_padding(measures.tokens[drawn], PADDED_ROWS), 4),
    }
    if plan.packed:
        fullest = np.zeros(plan.steps)
        np.maximum.at(fullest, steps, tokens)
        found["packs_per_step"] = round(len(tokens) / plan.steps, 2)
        found["pack_fill"] = round(float(tokens.mean() / (spec.pack_tokens or 1)), 4)
        found["evenness"] = round(float((tokens / fullest[steps]).mean()), 4)
    return found


def _samples(plan: PackPlan) -> Iterator[np.ndarray]:
    for chunk in plan.table["samples"].chunks:
        yield chunk.flatten().to_numpy()


def _padding(lengths: np.ndarray, rows: int) -> float:
    """The share of padding where so many samples at a time are padded to the longest."""
    whole = lengths[: len(lengths) // rows * rows].reshape(-1, rows)
    return float(1 - whole.sum() / (whole.max(axis=1).sum() * rows)) if len(whole) else 0.0


def plan_for(table: Path | None, shards: Mapping[str, Path]) -> PackPlan | None:
    """The plan in a table, which must be of these shards.

    Raises:
        BadInput: it was made of others, so its places mean other samples.
    """
    if table is None:
        return None
    made = manifest.verify(table)
    of = {
        name.removeprefix("shards."): version
        for name, version in made.inputs.items()
        if name.startswith("shards.")
    }
    have = {name: manifest.read(path).data_version for name, path in shards.items()}
    if list(of.items()) != list(have.items()):
        raise BadInput(
            "the pack plan was made of other shards than it shall be trained on",
            where=table,
            remedy="run the stage that makes the plan again (in Dagster: materialize the upstream asset)",
        )
    return read_plan(manifest.file(table, PLAN_FILE))


if __name__ == "__main__":
    main(PLAN)
