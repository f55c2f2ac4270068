"""Small tables in the true format, as a run of the quickstart leaves them, and the report made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.benchmarks import answers as answers_table
from pipelines.benchmarks import suite
from pipelines.benchmarks.question import Asked
from pipelines.filter.gallery import GALLERY
from pipelines.filter.quality import uid_of
from pipelines.lake import manifest
from pipelines.lake.identity import file_sha256
from pipelines.lake.ledger import Ledger
from pipelines.lake.manifest import Manifest, TableFile
from pipelines.model_card.markdown import FILE, SCORES_BEGIN, SCORES_END
from pipelines.report.spec import ReportSpec
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from pipelines.world import benchmark
from pipelines.world.crawl import draw_pages, draw_rows, write_rows
from pipelines.world.grammar import grammar
from pipelines.world.render import jpeg
from pipelines.world.scenes import draw_scenes

LANGUAGES = ["en", "zh"]
HOSTILE = '<script>alert("x")</script><img src=http://evil.example/x.png onerror=alert(1)>'
THUMBNAIL = jpeg(draw_scenes(1, seed=1)[0])
SERVER_FAULTS = {"not_found", "server_error", "slow_drip", "truncated_jpeg", "html_as_image", "oversized"}


def publish(table: Path, stage: str, **known: Any) -> Path:
    """Make a table of the files in `table`/made."""
    folder = table / "made"
    files = [
        TableFile(
            path=path.relative_to(table).as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size,
            rows=pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]  # fmt: skip
    made = Manifest(
        stage=stage, code_version="1", fingerprint="made", parameters=known.pop("parameters", {}), inputs={},
        files=files, created="2025-01-01T00:00:00+00:00", seconds=12.3, **known,
    )  # fmt: skip
    manifest.write(table, made)
    return table


def new(folder: Path, name: str) -> tuple[Path, Path]:
    """A table's folder, and the one for its files."""
    table = folder / name
    (table / "made").mkdir(parents=True)
    return table, table / "made"


def data_tables(folder: Path, rows: int) -> dict[str, Path]:
    """A crawl from URL list to shards, as if a good CLIP had scored it; one caption is hostile."""
    generator = random.Random(5)
    pages = draw_pages(rows + rows // 3, seed=3)
    drawn = draw_rows(pages, rows, seed=3, words=grammar("en"), origin="http://127.0.0.1:8741")
    truth_table, made = new(folder, "truth")
    write_rows(drawn, made)
    truth = pq.read_table(made / "truth.parquet").to_pylist()
    reasons = [row["fault"] for row in truth if row["fault"] in SERVER_FAULTS]
    reasons += ["duplicate"] * (rows - len(truth))
    fetched = [row for row in truth if row["fault"] not in SERVER_FAULTS]
    arrived = [row for row in fetched if "\0" not in row["caption"]]
    reasons += ["caption_invalid"] * (len(fetched) - len(arrived))
    uids = [uid_of(row["url"], row["caption"]) for row in arrived]
    raw, made = new(folder, "raw_pairs")
    captions = [row["caption"] for row in arrived]
    captions[uids.index(min(uids))] = HOSTILE
    columns = {"uid": uids, "url": [row["url"] for row in arrived], "caption": captions}
    pq.write_table(pa.table(columns), made / "pairs-00000.parquet")
    publish(raw, "raw_pairs", ledger=Ledger.of(kept=len(arrived), reasons=reasons))
    scores = [
        generator.gauss(0.31, 0.05) if row["is_good"] else generator.gauss(0.07, 0.06) for row in arrived
    ]
    clip, made = new(folder, "clip_scores")
    pq.write_table(
        pa.table({"uid": uids, "score": pa.array(scores, pa.float32())}), made / "scores-00000.parquet"
    )
    publish(
        clip,
        "clip_scores",
        metrics={"pairs_per_second": 312.5},
        ledger=Ledger.of(kept=len(arrived), reasons=[]),
    )
    kept = [uid for uid, score in zip(uids, scores, strict=True) if score > 0.18]
    filtered, made = new(folder, "filtered_pairs")
    pq.write_table(pa.table({"uid": kept}), made / "kept.parquet")
    sampled = [
        {"kind": kind, "uid": uids[place], "score": scores[place], "reason": reason, "detail": "",
         "caption": HOSTILE if place == 0 else captions[place], "url": arrived[place]["url"],
         "thumbnail": picture}
        for place, (kind, reason, picture) in enumerate([
            ("kept", None, THUMBNAIL), ("borderline", None, THUMBNAIL), ("dropped", "caption_cut", None),
        ])
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(sampled, GALLERY), made / "gallery.parquet")
    counts = {
        "domain": [{"value": HOSTILE, "rows": 40, "kept": 30}, {"value": "example.org", "rows": 7, "kept": 0}],
        "shorter side": [{"value": "64-127", "rows": 47, "kept": 30}],
        "language": [{"value": "en", "rows": 47, "kept": 30}],
    }  # fmt: skip
    publish(
        filtered, "filtered_pairs", parameters={"parameters": {"threshold": 0.18}},
        metrics={"statistics": counts, "within_0.001_of_threshold": 3, "quantiles": {"0.5": 0.2}},
        ledger=Ledger.of(kept=len(kept), reasons=["below_threshold"] * (len(uids) - len(kept))),
    )  # fmt: skip
    translated, made = new(folder, "translations")
    texts = ["<b>" + "两个小的红色圆形在一个大的蓝色正方形的左边。"] * len(uids)
    pq.write_table(pa.table({"uid": uids, "text": texts}), made / "zh.parquet")
    pq.write_table(pa.table({"uid": pa.array([], pa.string())}), made / "dropped.parquet")
    publish(translated, "translations", ledger=Ledger.of(kept=len(kept), reasons=[]))
    return {
        "raw_pairs": raw, "clip_scores": clip, "filtered_pairs": filtered, "translations": translated,
        "truth": truth_table / "made/truth.parquet",
    }  # fmt: skip


def model_table(folder: Path, name: str, stage: str, metrics: dict[str, Any]) -> Path:
    table, made = new(folder, name)
    generator = random.Random(name)
    losses = [3.2 * math.exp(-step / 90) + 0.35 + generator.gauss(0, 0.06) for step in range(600)]
    pq.write_table(pa.table({"step": list(range(600)), "loss": losses}), made / "losses.parquet")
    (made / "visual.safetensors").write_bytes(name.encode())
    (made / FILE).write_text(
        f"---\nlicense: unknown\n---\n\n# A vision-language model: test\n\n{SCORES_BEGIN}\n{SCORES_END}\n"
    )
    return publish(table, stage, metrics=metrics)


def answers(folder: Path, benchmarks: Path, name: str, reply: Callable[[Asked], str]) -> Path:
    table, made = new(folder, name)
    asked = suite.load([benchmarks], LANGUAGES)
    answers_table.write([answers_table.row(one, reply(one)) for one in asked], made / answers_table.FILE)
    return publish(table, "answers")


def speaker(seed: int, *, knows: float, chinese: float) -> Callable[[Asked], str]:
    """A model that is right with probability `knows` and answers Chinese in Chinese with `chinese`."""
    generator = random.Random(seed)

    def reply(asked: Asked) -> str:
        if seed == 1 and asked.benchmark == "open" and asked.item == "0":
            return HOSTILE
        if generator.random() > knows:
            return generator.choice("AB") if asked.options else "black"
        if asked.concept and asked.language == "zh" and generator.random() > chinese:
            return dict(asked.concept)["en"]
        return asked.gold

    return reply


def make_tables(folder: Path, *, rows: int, items: int) -> dict[str, Any]:
    """Every input of the quickstart's report."""
    benchmarks, made = new(folder, "benchmarks")
    choice = benchmark.draw_items(items, seed=1, choice=True)
    opened = benchmark.draw_items(items, seed=1, choice=False)
    for language in LANGUAGES:
        benchmark.write_mmmb(choice, language, made / f"mmmb_{language}.tsv")
        benchmark.write_open_questions(opened, language, LANGUAGES, made / f"open_{language}.parquet")
    publish(benchmarks, "world")
    said = {
        "pretrained": answers(folder, benchmarks, "said-1", speaker(1, knows=0.93, chinese=0.96)),
        "english_only": answers(folder, benchmarks, "said-2", speaker(2, knows=0.97, chinese=0.3)),
        "blend": answers(folder, benchmarks, "said-3", speaker(3, knows=0.985, chinese=1.0)),
    }
    execute(
        SCORES, ScoreAnswersSpec(output=folder / "scores", answers=said, benchmarks={"world": benchmarks})
    )
    bleu = {
        "zh": {"bleu": 93.4, "bleu_signature": "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"}
    }
    data = data_tables(folder, rows)
    return {
        **{name: {"week-1": path} for name, path in data.items()},
        "foundations": {
            "clip": model_table(folder, "clip", "clip", {}),
            "translator": model_table(folder, "translator", "translator", bleu),
        },
        "models": {name: model_table(folder, name, "training", {}) for name in said},
        "answers": said,
        "scores": folder / "scores",
        "benchmarks": {"world": benchmarks},
    }


@pytest.fixture(scope="session")
def report_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_tables(tmp_path_factory.mktemp("lake"), rows=300, items=40)


@pytest.fixture
def report_spec(report_inputs: dict[str, Any], tmp_path: Path) -> ReportSpec:
    return ReportSpec(output=tmp_path / "report", **report_inputs)
