"""Where everything in the report comes from: tables with their versions, weights with their digests, losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.lake import manifest
from pipelines.report.results import Curve, TableProvenance, TestSetScore, Translation, WeightFile
from pipelines.report.spec import ReportSpec

WEIGHT_FILES = (".safetensors", ".pt", "model.bin")
LOSSES = "losses.parquet"
_FIELDS = (
    "raw_pairs", "clip_scores", "filtered_pairs", "translations", "training_shards", "foundations",
    "instruction_mixes", "models", "answers",
)  # fmt: skip
POINTS = 400
"""Most points of a curve: longer ones are thinned."""

PUBLISHED_BLEU = {("wmt17", "en-zh"): {"CPM-Bee 10B (VisCPM, section 4.1)": 41.6}}


def tables(spec: ReportSpec) -> dict[str, Path]:
    """Every table that the report was given, by a name such as "raw_pairs/week-1", in the chain's order."""
    named = {f"benchmarks/{name}": table for name, table in spec.benchmarks.items()}
    for field in _FIELDS:
        named |= {f"{field}/{key}": table for key, table in getattr(spec, field).items()}
    return named | {"scores": spec.scores}


def provenance(named: dict[str, Path]) -> list[TableProvenance]:
    """What each table's manifest says about its making."""
    listed = []
    for name, table in named.items():
        made = manifest.read(table)
        listed.append(
            TableProvenance(
                name=name,
                stage=made.stage,
                data_version=made.data_version,
                code_version=made.code_version,
                fingerprint=made.fingerprint,
                rows=made.rows,
                seconds=made.seconds,
                created=made.created,
                inputs=made.inputs,
            )
        )
    return listed


def weights(named: dict[str, Path]) -> list[WeightFile]:
    """The weight files of these tables."""
    return [
        WeightFile(
            table=name,
            file=file.path.removeprefix(f"{made.fingerprint}/"),
            bytes=file.bytes,
            sha256=file.sha256,
        )
        for name, table in named.items()
        for made in [manifest.read(table)]
        for file in made.files
        if file.path.endswith(WEIGHT_FILES)
    ]


def curves(spec: ReportSpec) -> list[Curve]:
    """The loss curves of all tables that have one."""
    return list(_curves({**spec.foundations, **spec.models}))


def _curves(named: dict[str, Path]) -> Iterator[Curve]:
    for name, table in named.items():
        for file in manifest.files(table, LOSSES):
            columns = pq.read_table(file, columns=["step", "loss"]).to_pydict()
            stride = max(1, -(-len(columns["step"]) // POINTS))
            yield Curve(
                name=name,
                steps=columns["step"][::stride],
                losses=[round(loss, 5) for loss in columns["loss"][::stride]],
            )


def translation(spec: ReportSpec) -> Translation | None:
    """The translator's BLEU on held-out sentences by language, as its own table says; None if it was not scored."""
    if "translator" not in spec.foundations:
        return None
    metrics = manifest.read(spec.foundations["translator"]).metrics
    scored = {key: value for key, value in metrics.items() if isinstance(value, dict) and "bleu" in value}
    test_sets = [_test_set(table) for table in spec.test_sets.values()]
    if not scored and not test_sets:
        return None
    return Translation(
        test_sets=test_sets,
        bleu={language: value["bleu"] for language, value in scored.items()},
        signatures={language: value["bleu_signature"] for language, value in scored.items()},
    )


def _test_set(table: Path) -> TestSetScore:
    found = manifest.read(table).metrics
    return TestSetScore(
        name=found["test_set"],
        pair=found["pair"],
        segments=found["segments"],
        bleu=found["bleu"],
        signature=found["bleu_signature"],
        published=PUBLISHED_BLEU.get((found["test_set"], found["pair"]), {}),
    )
