"""One question as it is put to a model, with everything that scoring it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Key = tuple[str, str, str, int]
"""benchmark, language, item, rotation"""
Concept = tuple[tuple[str, str], ...]
"""One value of a topic: its (language, words), in the languages' order."""
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Asked:
    """One question as it is put to a model, with what is right."""

    benchmark: str
    language: str
    item: str
    rotation: int
    prompt: str
    question: str
    options: tuple[str, ...]
    gold: str
    """The right letter, word or label; a judge's reference answer; "" where nothing is right by itself."""
    category: str
    image: bytes | memoryview
    """The file's content."""
    image_sha256: str
    concept: Concept = ()
    """Of an open question of the world: its right answer in every language."""
    candidates: tuple[Concept, ...] = ()
    """Of an open question of the world: every value that its topic has."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What only this benchmark's scoring reads: the pair of a yes/no question, a judge's context."""

    @property
    def key(self) -> Key:
        return self.benchmark, self.language, self.item, self.rotation

    @property
    def prompt_digest(self) -> str:
        """Sixteen digits that tell whether an answer was given to this very prompt."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()[:16]
