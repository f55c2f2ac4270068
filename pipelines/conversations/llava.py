"""Conversations in LLaVA's format, read one by one from files of any size.

An entry is `{"id": ..., "image": ..., "conversations": [{"from": "human" | "gpt", "value": ...}, ...]}`, in a
JSON list or on lines of their own. Keys that are not known here are carried over as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

from pipelines.errors import BadInput

Entry = dict[str, Any]
MALFORMED = "malformed"
_READ = 64


def read(path: Path) -> Iterator[Any]:
    """Every entry of the file, in its order.

    Raises:
        BadInput: the file does not exist or is no JSON; names the entry at which it breaks off.
    """
    number = 0
    try:
        with path.open("rb") as stream:
            is_list = stream.read(_READ).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
            stream.seek(0)
            entries = (
                ijson.items(stream, "item", use_float=True)
                if is_list
                else (json.loads(line) for line in stream if line.strip())
            )
            for entry in entries:
                number += 1
                yield entry
    except FileNotFoundError:
        raise BadInput("the conversations do not exist", where=path, remedy="check the path") from None
    except (ijson.JSONError, ValueError) as error:
        raise BadInput(
            f"the file breaks off or is no JSON after entry {number}: {error}",
            where=path,
            remedy="fetch the file again",
        ) from None


def values(entry: Any) -> list[str] | None:
    """What is said in an entry, message by message; None if it is no conversation."""
    messages = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(messages, list) or not messages:
        return None
    said = [
        message["value"]
        for message in messages
        if isinstance(message, dict) and isinstance(message.get("value"), str)
    ]
    return said if len(said) == len(messages) else None


def with_values(entry: Entry, said: list[str], language: str) -> Entry:
    """The entry with other words, in `language`, which it then names."""
    messages = [
        {**message, "value": value} for message, value in zip(entry["conversations"], said, strict=True)
    ]
    return {**entry, "conversations": messages, "language": language}
