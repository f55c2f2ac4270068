"""Small published tables for tests: what the stages before the tested one would have left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.download.writer import PAIRS
from pipelines.lake import manifest
from pipelines.lake.identity import document_sha256, file_sha256, pair_uid
from pipelines.lake.shards import ShardWriter, write_index
from pipelines.world.documents import documents
from pipelines.world.grammar import grammar
from pipelines.world.render import jpeg
from pipelines.world.scenes import draw_scenes


def publish(table: Path, write: Callable[[Path], None]) -> Path:
    """Publish what `write` puts into a folder, as a stage would."""
    name = document_sha256({"table": str(table)})[:16]
    folder = table / name
    folder.mkdir(parents=True)
    write(folder)
    files = [
        manifest.TableFile(
            path=f"{name}/{path.relative_to(folder).as_posix()}",
            sha256=file_sha256(path),
            bytes=path.stat().st_size,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    made = manifest.Manifest(
        stage="test", code_version="1", fingerprint=name, parameters={}, inputs={}, files=files,
        created="", seconds=0.0,
    )  # fmt: skip
    manifest.write(table, made)
    return table


def raw_pairs(table: Path, rows: Sequence[dict[str, Any]], *, shards: int = 3) -> Path:
    """A table of the download stage that holds `rows`, in so many shards."""

    def write(folder: Path) -> None:
        for number in range(shards):
            mine = rows[number::shards]
            name = f"shard-{number:05d}.tar"
            with ShardWriter(folder, "shard", len(mine) + 1, first=number) as writer:
                for row in mine:
                    writer.add(row["uid"], row["image"], "jpg", {"caption": row["caption"]}, [])
            written = [
                {
                    **{key: row[key] for key in ("uid", "url", "caption", "language")},
                    "shard": name, "offset": place["image_offset"], "length": place["image_length"],
                    "width": 96, "height": 96, "image_sha256": hashlib.sha256(row["image"]).hexdigest(),
                }
                for row, place in zip(mine, writer.rows, strict=True)
            ]  # fmt: skip
            pq.write_table(pa.Table.from_pylist(written, PAIRS), folder / f"pairs-{number:05d}.parquet")

    return publish(table, write)


def filtered_pairs(table: Path, uids: Sequence[str]) -> Path:
    """A table of the filter stage that kept `uids`."""
    rows = {"uid": list(uids), "score": [0.5] * len(uids)}
    return publish(table, lambda folder: pq.write_table(pa.table(rows), folder / "kept.parquet"))


def translations(table: Path, texts: dict[str, dict[str, str]]) -> Path:
    """A table of the translation stage: language -> uid -> text."""

    def write(folder: Path) -> None:
        for language, by_uid in texts.items():
            rows = {"uid": list(by_uid), "text": list(by_uid.values())}
            pq.write_table(pa.table(rows), folder / f"{language}.parquet")
        pq.write_table(pa.table({"uid": pa.array([], pa.string())}), folder / "dropped.parquet")

    return publish(table, write)


def world_rows(count: int, *, seed: int = 0, language: str = "en") -> list[dict[str, Any]]:
    """`count` pairs as they come from the world's web; every third caption stands under two pictures."""
    scenes = draw_scenes(count, seed=seed)
    rows = []
    for index, scene in enumerate(scenes):
        described = scenes[index - 1] if index % 3 == 2 else scene
        caption = grammar(language).caption(described, 0)
        url = f"http://127.0.0.1/{seed}/{index}.jpg"
        rows.append(
            {
                "uid": pair_uid(url, caption), "url": url, "caption": caption, "language": language,
                "image": jpeg(scene),
            }
        )  # fmt: skip
    return rows


def training_shards(table: Path, count: int, *, languages: Sequence[str] = ("en", "zh")) -> Path:
    """A table of training shards: `count` scenes with a caption in each language."""

    def write(folder: Path) -> None:
        with ShardWriter(folder, "shard", count) as writer:
            for index, scene in enumerate(draw_scenes(count, seed=3)):
                captions = {language: grammar(language).caption(scene, 0) for language in languages}
                uid = pair_uid(f"http://127.0.0.1/{index}.jpg", captions["en"])
                writer.add(
                    uid,
                    jpeg(scene),
                    "jpg",
                    {"uid": uid, "source": "test", "captions": captions},
                    list(languages),
                )
        write_index(folder / "index.parquet", writer.rows)

    return publish(table, write)


def training_inputs(folder: Path) -> dict[str, Path]:
    """A random language model, a random visual module, and shards: all that pretraining reads, tiny."""
    # Here, for torch costs the tests that need only tables ten seconds.
    from models.chat import prompt
    from models.chat_template import TemplateChat
    from models.language_model import SmallConfig, make_language_model, save_language_model
    from models.vision import VisionConfig
    from models.vision_language import make_visual_module, save_visual_module
    from models.word_tokenizer import make_word_tokenizer

    texts = [
        prompt(turn["question"], context=document["context"]) + turn["answer"]
        for document in documents(200, seed=0, languages=["en", "zh"])
        for turn in document["turns"]
    ]
    tokenizer = make_word_tokenizer(texts, 512)
    chat = TemplateChat(tokenizer, "chatml")
    config = SmallConfig(width=32, layers=2, heads=2, mlp_width=64, positions=256)
    language_model = make_language_model(config, vocabulary=tokenizer.get_vocab_size(), seed=0)
    vision = VisionConfig(image_size=32, patch_size=8, queries=4, width=32, layers=1, heads=2)
    visual = make_visual_module(vision, 32, seed=0)
    return {
        "language_model": publish(
            folder / "language_model", lambda out: save_language_model(language_model, chat, out)
        ),
        "vision": publish(folder / "vision", lambda out: save_visual_module(visual, out)),
        "shards": training_shards(folder / "shards", 40),
    }
