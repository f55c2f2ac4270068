"""What a stage's pods may reach follows from the spec: the web and servers only where it names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.answer import spec as answer
from pipelines.benchmark_files import spec as benchmark_files
from pipelines.conversations import spec as conversations
from pipelines.download import spec as download
from pipelines.judge import spec as judge
from pipelines.lake.manifest import MANIFEST_NAME, Manifest, TableFile
from pipelines.remote.spec import Server
from pipelines.translate import spec as translate
from pipelines.translation_benchmark import spec as translation_benchmark

SERVER = Server(base_url="https://api.example/v1", model="m")
ADDRESS = {"url": "https://web.example/mmmb_en.tsv"}


def translator(folder: Path, file: str) -> Path:
    """A translator table of which only the manifest is there."""
    made = Manifest(
        stage="foundations/translator", code_version="1", fingerprint="f", parameters={}, inputs={},
        files=[TableFile(path=f"f/{file}", sha256="0" * 64, bytes=1)], created="now", seconds=1,
    )  # fmt: skip
    folder.mkdir()
    (folder / MANIFEST_NAME).write_text(made.model_dump_json())
    return folder


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return translator(tmp_path / "local", "ct2/model.bin")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return translator(tmp_path / "served", translate.SERVER_FILE)


def test_a_crawl_is_read_from_the_web(tmp_path: Path) -> None:
    assert download.STAGE.reach(download.DownloadSpec.model_construct(output=tmp_path)) == "web"


def test_what_translates_asks_a_server_where_its_translator_is_one(local: Path, served: Path) -> None:
    for stage, spec_type in (
        (translate.STAGE, translate.TranslateSpec), (conversations.STAGE, conversations.ConversationSpec),
    ):  # fmt: skip
        assert stage.reach(spec_type.model_construct(translator=local)) == "store"  # type: ignore[attr-defined]
        assert stage.reach(spec_type.model_construct(translator=served)) == "servers"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("more", "reach"),
    [
        ({"files": {"mmmb_en.tsv": "here.tsv"}}, "store"),
        ({"urls": {"mmmb_en.tsv": ADDRESS}}, "web"),
        ({"urls": {"mmmb_en.tsv": ADDRESS}, "translate_into": ["pt"], "translator": "local"}, "web"),
        ({"urls": {"mmmb_en.tsv": ADDRESS}, "translate_into": ["pt"], "translator": "served"}, "servers"),
    ],
)
def test_benchmark_files_are_fetched_where_the_recipe_names_addresses(
    more: dict[str, Any], reach: str, tmp_path: Path, local: Path, served: Path
) -> None:
    tables = {"local": local, "served": served}
    told = {name: tables.get(value, value) if name == "translator" else value for name, value in more.items()}
    spec = benchmark_files.BenchmarkFilesSpec(output=tmp_path, benchmark="mmmb", **told)
    assert benchmark_files.STAGE.reach(spec) == reach


def test_a_published_test_set_is_fetched_where_it_is_an_address(tmp_path: Path, local: Path) -> None:
    for source, reach in (("https://web.example/source.sgm", "web"), ("source.sgm", "store")):
        told = translation_benchmark.TestSet(
            name="wmt17", source=source, reference="reference.sgm", source_sha256="0" * 64
        )
        spec = translation_benchmark.TranslationBenchmarkSpec(
            output=tmp_path, test_set=told, translator=local
        )
        assert translation_benchmark.STAGE.reach(spec) == reach


def test_a_judge_and_a_model_behind_a_server_are_asked_and_others_are_not(tmp_path: Path) -> None:
    for server, reach in ((SERVER, "servers"), (None, "store")):
        judged = judge.JudgeSpec(
            output=tmp_path, items=tmp_path / "items.jsonl", judge=judge.Judge(server=server)
        )
        assert judge.STAGE.reach(judged) == reach
        model = None if server else tmp_path / "model"
        asked = answer.AnswerSpec(
            output=tmp_path, model=model, server=server, benchmarks={"mmmb": tmp_path / "mmmb"}
        )
        assert answer.STAGE.reach(asked) == reach
