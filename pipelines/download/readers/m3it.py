"""M3IT: JSON lines of instruction, inputs, outputs and an image in base64, one file per task.

Where a task's rows carry no instruction, `instructions.json` beside its file lists some; a row is given one by
the hash of its content, so that it is always the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.jsonl import parsed
from pipelines.download.readers.record import Place, Record, malformed, own_address
from pipelines.download.readers.streams import Line, lines
from pipelines.download.readers.turns import dump
from pipelines.download.reasons import Reason
from pipelines.errors import BadInput

IMAGE_KEYS = ("image_base64_str", "image_str", "img_str")
"""What the tasks call their image; `columns.image` names another."""


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per line: a conversation of one turn, or with `records: pairs` the output as a caption."""
    for number, path in enumerate(manifest.files):
        listed = _instructions(path.parent / "instructions.json")
        for line in lines(path):
            where = f"{path.name} line {line.number}"
            row = parsed(line)
            if isinstance(row, str):
                yield malformed(where, row)
            else:
                yield _record(where, row, line, number, listed, manifest)


def _record(
    where: str, row: dict[str, Any], line: Line, file: int, listed: list[str], manifest: CrawlManifest
) -> Record:
    columns = manifest.columns
    key = next((key for key in (columns.image, *IMAGE_KEYS) if row.get(key)), None)
    if key is None:
        return malformed(where, "no image in base64", reason=Reason.IMAGE_MISSING)
    encoded = row[key]
    if isinstance(encoded, list):
        if len(encoded) > 1:
            return malformed(where, f"{len(encoded)} images in one row", reason=Reason.SEVERAL_IMAGES)
        encoded = encoded[0]
    if not isinstance(encoded, str):
        return malformed(where, f"the image in {key!r} is no text")
    digest = hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).hexdigest()
    address = own_address(manifest, f"sha256/{digest[:32]}")
    instruction, question, answer = (
        row.get(name) or "" for name in (columns.instruction, columns.question, columns.answer)
    )
    if not all(isinstance(part, str) for part in (instruction, question, answer)):
        return malformed(where, "instruction, inputs or outputs is no text", url=address)
    if not instruction and listed:
        chosen = hashlib.sha256(f"{digest}\n{question}\n{answer}".encode("utf-8", "surrogatepass")).digest()
        instruction = listed[int.from_bytes(chosen[:8]) % len(listed)]
    prompt = "\n".join(part.strip() for part in (instruction, question) if part.strip())
    if not answer.strip() or not prompt:
        return malformed(
            where, "no question or no answer", reason=Reason.CONVERSATION_EMPTY_TURN, url=address
        )
    image = Place("base64", key, file, line.offset, line.size)
    written = answer.strip().encode("utf-8", "surrogatepass")
    if manifest.kind == "conversations":
        written = dump([(prompt, answer.strip())])
    return Record(where, address.encode(), written, image)


def _instructions(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"this file is not JSON: {error}", where=path, remedy="fetch it again") from None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise BadInput("this file is no list of instructions", where=path, remedy="fetch it again") from None
    return listed
