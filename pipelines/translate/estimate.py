"""What translating a crawl would cost where a server translates, before anything is asked."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.lake import kept_pairs, manifest
from pipelines.lake.buckets import hash_keys
from pipelines.remote.budget import NOTHING
from pipelines.translate.spec import TranslateSpec
from pipelines.translate.translators import open_translator


def estimate(spec: TranslateSpec) -> str:
    """The cost in words: requests, tokens and money at most, without what was answered before.

    Memory holds a shard, and a number per distinct caption.
    """
    with tempfile.TemporaryDirectory() as nothing_kept:
        translator = open_translator(
            manifest.folder(spec.translator),
            spec.parameters.decoding,
            spec.cache or Path(nothing_kept),
            version="",
            device=spec.device,
            threads=spec.threads,
            conduct=spec.conduct,
            account=str(spec.output),
        )
        seen: set[tuple[str, int]] = set()
        total = NOTHING
        for rows in kept_pairs.read(spec.raw_pairs, spec.filtered_pairs, ["uid", "caption", "language"]):
            captions, languages = rows["caption"].to_pylist(), rows["language"].to_pylist()
            new: dict[str, list[str]] = {}
            for caption, language, key in zip(captions, languages, hash_keys(captions).tolist(), strict=True):
                if caption.strip() and (language, key) not in seen:
                    seen.add((language, key))
                    new.setdefault(language, []).append(caption)
            for source, texts in new.items():
                for target in spec.parameters.target_languages:
                    if target != source:
                        total += translator.estimate(texts, source, target)
    return total.words()
