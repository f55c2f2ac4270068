"""Choosing captions by hash, and translating them; what the guard rejects in any language is left out of all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.held_out.spec import HeldOutSpec
from pipelines.lake.buckets import hash_keys
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.planning import HELD_OUT, HELD_OUT_FILE
from pipelines.training.texts import ShardTexts
from pipelines.translate.guarded import Reject, translate_all
from pipelines.translate.translators import hold_to_gate, stage_translator

CANDIDATES = 4
"""Captions that are translated for each that is wanted: the guard rejects some."""
NOT_NEEDED = "not_needed"


def run(spec: HeldOutSpec, work: Work, progress: Progress) -> Outcome:
    """Write `held_out.parquet`, as a pack plan does: uid, image, and the caption in every language.

    Raises:
        BadInput: the translator is below a gate, or no caption came through in every language.
    """
    told = spec.parameters
    source, targets = told.source_language, told.target_languages
    pairs = [(source, target) for target in targets]
    hold_to_gate(spec.translator, told.least_bleu, pairs, spec.test_scores)
    shards = ShardTexts([spec.shards])
    wanted = min(told.captions, max(1, len(shards) // 10))
    chosen = _chosen(shards, source, told.seed, wanted * CANDIDATES)
    translator = stage_translator(spec, told.decoding, work.folder, progress.say)
    progress.start("translating", len(targets) * len(set(chosen.values())), unit="caption")
    known = {
        target: translate_all(translator, chosen.values(), source, target, told.guard, progress.advance)
        for target in targets
    }
    rows: list[dict[str, Any]] = []
    reasons: list[str] = []
    for place, caption in chosen.items():
        made = {target: known[target][caption] for target in targets}
        rejected = [one for one in made.values() if isinstance(one, Reject)]
        if rejected:
            reasons.append(rejected[0].reason.value)
        elif len(rows) == wanted:
            reasons.append(NOT_NEEDED)
        else:
            texts = {target: one.text for target, one in made.items() if not isinstance(one, Reject)}
            captions = json.dumps({source: caption, **texts}, ensure_ascii=False)
            rows.append({"uid": shards.uid(place), "image": shards.image(place), "captions": captions})
    if not rows:
        raise BadInput(
            f"none of {len(chosen)} captions came through the guard in {', '.join(targets)}",
            where=spec.shards,
            remedy="look at the translator's samples; take better weights, or hold no captions out",
        )
    pq.write_table(pa.Table.from_pylist(rows, HELD_OUT), work.out / HELD_OUT_FILE)
    return Outcome(
        ledger=Ledger.of(kept=len(rows), reasons=reasons),
        metrics={
            "languages": [source, *targets],
            "samples": [json.loads(row["captions"]) for row in rows[:3]],
        },
        rows={HELD_OUT_FILE: len(rows)},
    )


def _chosen(shards: ShardTexts, language: str, seed: int, most: int) -> dict[int, str]:
    """Place -> caption of the samples that hash first, among those with a caption in the language."""
    uids = [shards.uid(index) for index in range(len(shards))]
    found: dict[int, str] = {}
    for index in np.lexsort((np.array(uids, dtype=object), hash_keys(uids, seed))).tolist():
        if len(found) == most:
            break
        if caption := shards.document(index)["captions"].get(language):
            found[index] = caption
    return found
