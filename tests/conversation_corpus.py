"""A small corpus in LLaVA's format, with conversations about images and about none, as a person has it on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.download.spec import STAGE, DownloadParameters, spec_for
from pipelines.stage import execute


def entry(name: str, image: str | None, *said: str) -> dict[str, Any]:
    """A conversation: questions and answers in turn; an image's placeholder before the first question."""
    messages = [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(said)]
    if image is None:
        return {"id": name, "conversations": messages}
    messages[0]["value"] = "<image>\n" + messages[0]["value"]
    return {"id": name, "image": image, "conversations": messages}


def write(folder: Path, entries: Sequence[dict[str, Any]], images: dict[str, bytes], **keys: object) -> Path:
    """The corpus and its crawl manifest, which is returned."""
    (folder / "images").mkdir(parents=True)
    for name, content in images.items():
        (folder / "images" / name).write_bytes(content)
    (folder / "talks.json").write_text(json.dumps(list(entries)))
    crawl = folder / "crawl.yaml"
    document = {
        "crawl": "talks", "language": "en", "format": "llava", "files": ["talks.json"],
        "images": {"files": ["images"], "url_prefix": "http://images.example/"}, **keys,
    }  # fmt: skip
    crawl.write_text(yaml.safe_dump(document))
    return crawl


def taken_in(crawl: Path, table: Path, **parameters: Any) -> Path:
    """Its table of raw pairs, made by the download stage."""
    execute(STAGE, spec_for(crawl, DownloadParameters(**parameters), table, workers=1))
    return table
