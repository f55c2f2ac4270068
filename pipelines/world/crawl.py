"""Crawls of the world's web: URL lists with captions as the web has them, and the truth about each row.

The world's web is a set of pages, some of which its server serves badly. A crawl is a sample of
these pages, each with a caption. So a later crawl is another sample of the same web, with other
captions: `python -m pipelines.world.crawl` makes one for the folder that the sensor watches.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipelines.crawls import CrawlManifest
from pipelines.documents import validated
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.lake import manifest
from pipelines.world.faults import (
    CAPTION_FAULTS,
    CONTROL_CHARACTER,
    NO_FAULT,
    PAGE_FAULTS,
    cut_short,
    rows_with,
    unrelated_caption,
)
from pipelines.world.grammar import Grammar, grammar
from pipelines.world.scenes import Scene, draw_scenes
from pipelines.world.spec import LICENSE, WorldParameters

PAGES_SCHEMA = pa.schema([("path", pa.string()), ("scene", pa.string()), ("fault", pa.string())])
URLS_SCHEMA = pa.schema([("url", pa.string()), ("caption", pa.string())])
TRUTH_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("fault", pa.string()),
        ("is_good", pa.bool_()),
        ("scene", pa.string()),
    ]
)
_ROWS_PER_DUPLICATE = 500


@dataclass(frozen=True)
class Page:
    """One image on the world's web: its path, what it shows, and how it is served."""

    path: str
    scene: Scene
    fault: str


@dataclass(frozen=True)
class Row:
    """One row of a crawl, and the truth about it."""

    url: str
    caption: str
    fault: str
    scene: Scene

    @property
    def is_good(self) -> bool:
        """Whether the image, as the URL gives it, and the caption belong together and are whole."""
        return self.fault in (NO_FAULT, CONTROL_CHARACTER)


def draw_pages(count: int, *, seed: int) -> list[Page]:
    """The world's web; the same for the same arguments. No page shows a held-out scene."""
    faults: list[str] = [fault for fault in PAGE_FAULTS for _ in range(rows_with(fault, count))]
    faults += [NO_FAULT] * (count - len(faults))
    random.Random(f"pages {seed}").shuffle(faults)
    scenes = draw_scenes(count, seed=seed)
    return [
        Page(f"/images/{index:06d}.jpg", scene, fault)
        for index, (scene, fault) in enumerate(zip(scenes, faults, strict=True))
    ]


def draw_rows(pages: list[Page], count: int, *, seed: int, words: Grammar, origin: str) -> list[Row]:
    """A crawl of `count` rows, of which a few stand in it twice; the same for the same arguments.

    Raises:
        BadInput: the web has too few pages of some kind for so many rows.
    """
    generator = random.Random(f"crawl {seed}")
    duplicates = max(2, count // _ROWS_PER_DUPLICATE)
    distinct = count - duplicates
    wanted = {fault: rows_with(fault, distinct) for fault in PAGE_FAULTS}
    wanted[NO_FAULT] = distinct - sum(wanted.values())
    chosen: list[Page] = []
    for fault, number in wanted.items():
        such = [page for page in pages if page.fault == fault]
        if number > len(such):
            raise BadInput(
                f"a crawl of {count} rows needs {number} pages with fault {fault!r}; the web has {len(such)}",
                where="the world's pages",
                remedy="ask for fewer rows, or make a world with more `pages`",
            )
        chosen += generator.sample(such, number)
    sound = [index for index, page in enumerate(chosen) if page.fault == NO_FAULT]
    generator.shuffle(sound)
    caption_faults: dict[int, str] = {}
    for fault in CAPTION_FAULTS:
        for _ in range(rows_with(fault, distinct)):
            caption_faults[sound.pop()] = fault
    untidy = {sound.pop(): "\n", sound.pop(): "\0"}
    rows = []
    for index, page in enumerate(chosen):
        caption = words.caption(page.scene, generator.randrange(len(words.captions)))
        fault = caption_faults.get(index, page.fault)
        if fault == "unrelated_caption":
            caption = unrelated_caption(page.scene, words, generator)
        elif fault == "caption_cut_short":
            caption = cut_short(caption, generator)
        elif index in untidy:
            fault, half = CONTROL_CHARACTER, len(caption) // 2
            caption = caption[:half] + untidy[index] + caption[half:]
        rows.append(Row(origin + page.path, caption, fault, page.scene))
    rows += generator.sample(rows, duplicates)
    generator.shuffle(rows)
    return rows


def write_pages(pages: list[Page], file: Path) -> None:
    """What the web server serves."""
    columns = {
        "path": [page.path for page in pages],
        "scene": [page.scene.model_dump_json() for page in pages],
        "fault": [page.fault for page in pages],
    }
    pq.write_table(pa.table(columns, PAGES_SCHEMA), file)


def read_pages(file: Path) -> list[Page]:
    """The pages in the order in which they were written."""
    return [
        Page(row["path"], Scene.model_validate_json(row["scene"]), row["fault"])
        for row in pq.read_table(file, schema=PAGES_SCHEMA).to_pylist()
    ]


def write_rows(rows: list[Row], folder: Path) -> None:
    """`urls.parquet`, the crawl itself, and `truth.parquet`, with each distinct pair once."""
    urls = {"url": [row.url for row in rows], "caption": [row.caption for row in rows]}
    pq.write_table(pa.table(urls, URLS_SCHEMA), folder / "urls.parquet")
    distinct = list({(row.url, row.caption): row for row in rows}.values())
    truth = {
        "url": [row.url for row in distinct],
        "caption": [row.caption for row in distinct],
        "fault": [row.fault for row in distinct],
        "is_good": [row.is_good for row in distinct],
        "scene": [row.scene.model_dump_json() for row in distinct],
    }
    pq.write_table(pa.table(truth, TRUTH_SCHEMA), folder / "truth.parquet")


def crawl_document(*, crawl: str, language: str, file: str, world: str) -> str:
    """The YAML of a crawl manifest for a URL list of the world; see pipelines/crawls.py."""
    document = {
        "crawl": crawl,
        "language": language,
        "files": [file],
        "license": LICENSE,
        "source": "the procedural world, pipelines/world",
        "allow_loopback": True,
        "world": world,
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def origin(port: int) -> str:
    """Scheme, host and port of the world's web server."""
    return f"http://127.0.0.1:{port}"


def make_crawl(world: Path, *, name: str, rows: int, seed: int, output: Path) -> Path:
    """Another crawl of the web of a world table: `<output>/<name>.yaml` and its files in `<output>/<name>/`.

    The manifest is written last, so that a sensor which watches `output` never finds half a crawl.

    Raises:
        BadInput: the world table does not exist, or has too few pages.
    """
    made = manifest.read(world)
    parameters = validated(
        WorldParameters, made.parameters["parameters"], where=world / manifest.MANIFEST_NAME
    )
    words = grammar(parameters.pivot_language)
    text = crawl_document(
        crawl=name, language=words.language, file=f"{name}/urls.parquet", world=str(world.resolve())
    )
    path = output / f"{name}.yaml"
    validated(CrawlManifest, yaml.safe_load(text), where=path)
    pages = read_pages(manifest.file(world, "pages.parquet"))
    drawn = draw_rows(pages, rows, seed=seed, words=words, origin=origin(parameters.port))
    (output / name).mkdir(parents=True, exist_ok=True)
    write_rows(drawn, output / name)
    manifest.write_atomically(path, text.encode())
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.world.crawl",
        description="Make one more crawl of a world's web, with a manifest for the folder of crawls.",
    )
    parser.add_argument("--world", type=Path, required=True, metavar="TABLE", help="the world table")
    parser.add_argument("--name", required=True, help="name of the crawl, such as week-2")
    parser.add_argument("--rows", type=int, default=400, help="rows of its URL list (default 400)")
    parser.add_argument("--seed", type=int, default=2, help="another seed draws other pages and captions")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the folder of crawls")
    given = parser.parse_args()
    try:
        print(make_crawl(given.world, name=given.name, rows=given.rows, seed=given.seed, output=given.output))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    main()
