"""The translators in a translator table, behind a cache: what was translated once is not translated again.

A table holds M2M-100 for CTranslate2, a server's description, or both, with each target language going
to one of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ctranslate2

from models.translator import CT2_FOLDER, Output, Translator
from models.weights import WeightsError
from pipelines.cores import usable_cores
from pipelines.documents import validated
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.remote.budget import NOTHING, Estimate
from pipelines.remote.cache import Cache, key_of
from pipelines.remote.spec import REQUESTS_FILE, Conduct
from pipelines.translate.guarded import TranslatesTexts
from pipelines.translate.remote import RemoteTranslator
from pipelines.translate.spec import SERVER_FILE, Decoding, Device, RemoteTranslation, TranslatingSpec

TRANSLATIONS_FILE = "translations.sqlite"
_DEVICES = Path("/dev")


class Routed:
    """Sends each target language to the translator that knows it."""

    def __init__(self, by_language: Mapping[str, TranslatesTexts], otherwise: TranslatesTexts | None) -> None:
        self._by_language, self._otherwise = by_language, otherwise

    @property
    def kept(self) -> int:
        """Texts so far that were not translated again."""
        used = {id(one): one for one in (*self._by_language.values(), self._otherwise)}.values()
        return sum(one.kept for one in used if isinstance(one, Cached | RemoteTranslator))

    def translate(self, texts: Sequence[str], source: str, target: str) -> Sequence[Output]:
        """The translation of each text, in order.

        Raises:
            BadInput: no translator knows one of the languages.
        """
        translator = self._by_language.get(target, self._otherwise)
        if translator is None:
            raise BadInput(
                f"no translator of this table translates into {target!r}",
                where="the translator's `server.languages`",
                remedy="give `weights` for it, or name it among the server's `languages`",
            )
        try:
            made = translator.translate(texts, source, target)
        except WeightsError as error:
            raise BadInput(error.message, where=error.where, remedy=error.remedy) from error
        except RuntimeError as error:
            # CTranslate2's, of a GPU: it loads CUDA's libraries when it first translates.
            raise BadInput(
                f"the translation model failed: {error}",
                where="the translator",
                remedy="give it the libraries that are named (CUDA 12's cuBLAS: `pip install nvidia-cublas-cu12`), smaller "
                "batches (`translation.decoding.max_batch_tokens`) if memory is short, or `device: cpu`",
            ) from error
        return [Output(one.text, one.finished, one.failure) for one in made]

    def estimate(self, texts: Sequence[str], source: str, target: str) -> Estimate:
        """What a server would be asked for; nothing for a local model."""
        translator = self._by_language.get(target, self._otherwise)
        return (
            translator.estimate(texts, source, target)
            if isinstance(translator, RemoteTranslator)
            else NOTHING
        )


class Cached:
    """A local model that looks up before it translates."""

    def __init__(self, translator: TranslatesTexts, cache: Cache, identity: Mapping[str, object]) -> None:
        """`identity`: everything about the model and its search that its output depends on."""
        self._translator, self._cache, self._identity = translator, cache, identity
        self.kept = 0

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Output]:
        """The translation of each text; equal texts, now or in any earlier run, are translated once."""
        document = {**self._identity, "source": source, "target": target}
        keys = {text: key_of(text, document) for text in dict.fromkeys(texts)}
        kept = self._cache.get(list(keys.values()))
        found = {text: Output(*json.loads(kept[key])) for text, key in keys.items() if key in kept}
        self.kept += len(found)
        missing = [text for text in keys if text not in found]
        if missing:
            made = self._translator.translate(missing, source, target)
            new = {
                text: Output(one.text, one.finished, one.failure)
                for text, one in zip(missing, made, strict=True)
            }
            lasting = {text: one for text, one in new.items() if not one.failure}
            self._cache.put(
                {keys[text]: json.dumps(one, ensure_ascii=False) for text, one in lasting.items()}
            )
            found |= new
        return [found[text] for text in texts]


def pick(device: Device) -> str:
    """The device that CTranslate2 translates on.

    Raises:
        BadInput: this machine, or this container, has a GPU, and CTranslate2 cannot use it: on the CPU the work would
            take many times as long, and nobody would know why.
    """
    if device != "auto":
        return device
    if ctranslate2.get_cuda_device_count():
        return "cuda"
    if any(_DEVICES.glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise BadInput(
            "this machine has an NVIDIA GPU, and CTranslate2 cannot use it",
            where=_DEVICES,
            remedy="mend the driver; `device: cpu` translates on the CPU all the same",
        )
    return "cpu"


def open_translator(
    folder: Path,
    decoding: Decoding,
    cache: Path,
    *,
    version: str,
    device: Device,
    threads: int | None,
    conduct: Conduct,
    account: str,
    say: Callable[[str], None] = lambda _: None,
) -> Routed:
    """The translator in the files of a translator table.

    `threads`: CPU threads; none: one per core. `version`: the table's data version, under which local translations are kept; "" keeps none.
    `cache`: the folder of kept translations and requests. `account`: on whose budget a server is asked.

    Raises:
        BadInput: the folder lacks a file, a file cannot be loaded, or a server's key is not set.
    """
    local: TranslatesTexts | None = None
    if (folder / CT2_FOLDER).is_dir() or not (folder / SERVER_FILE).is_file():
        try:
            local = Translator(
                folder, device=pick(device), threads=threads or usable_cores(), **decoding.model_dump()
            )
        except WeightsError as error:
            raise BadInput(error.message, where=error.where, remedy=error.remedy) from error
        if version:
            search = decoding.model_dump(exclude={"max_batch_tokens"})
            identity = {"kind": "m2m100 1", "model": version, **search}
            local = Cached(local, Cache(cache / TRANSLATIONS_FILE), identity)
    if not (folder / SERVER_FILE).is_file():
        return Routed({}, local)
    document = json.loads((folder / SERVER_FILE).read_text(encoding="utf-8"))
    remote = validated(RemoteTranslation, document, where=folder / SERVER_FILE)
    asking = RemoteTranslator(remote, conduct, cache / REQUESTS_FILE, account=account, say=say)
    if not remote.languages:
        return Routed({}, asking)
    return Routed(dict.fromkeys(remote.languages, asking), local)


def stage_translator(
    spec: TranslatingSpec, decoding: Decoding, scratch: Path, say: Callable[[str], None]
) -> Routed:
    """The translator that a stage is told to use. `scratch`: where translations are kept if the spec names no cache.

    Raises:
        BadInput: see `open_translator`.
    """
    assert spec.translator is not None  # noqa: S101  # the stage looked
    return open_translator(
        manifest.folder(spec.translator),
        decoding,
        spec.cache or scratch,
        version=manifest.read(spec.translator).data_version,
        device=spec.device,
        threads=spec.threads,
        conduct=spec.conduct,
        account=str(spec.output),
        say=say,
    )


def hold_to_gate(
    table: Path, least_bleu: Mapping[str, float], pairs: Sequence[tuple[str, str]], test_scores: Sequence[Path] = ()
) -> None:  # fmt: skip
    """Refuse a translator that measured below the gate of a language pair that is about to be translated.

    `least_bleu`: by "en-zh"; a pair without an entry has no gate. It was measured on the held-out sentences of the
    translator's own table, and in the tables `test_scores` of the stage translation_benchmark: on each, it must reach the gate.

    Raises:
        BadInput: names the pair, what was measured on and both figures, or that the pair was never measured.
    """
    gated = [f"{source}-{target}" for source, target in pairs if f"{source}-{target}" in least_bleu]
    if not gated:
        return
    measured = _measured(table, test_scores)
    for pair in gated:
        least = least_bleu[pair]
        found = [(name, bleu) for (of, name), bleu in measured.items() if of == pair]
        if not found:
            raise BadInput(
                f"a BLEU of at least {least:g} is asked for {pair}, but this translator was never scored on it",
                where=table,
                remedy="name a test set of that pair, published or two files of your own (docs/translation.md), or take the "
                "pair out of `least_bleu`",
            )
        name, bleu = min(found, key=lambda one: one[1])
        if bleu < least:
            raise BadInput(
                f"the translator's BLEU on {name} is {bleu:g} for {pair}; at least {least:g} is asked, so nothing is "
                "translated with it",
                where=table,
                remedy="train it longer or take better weights; lower `least_bleu` only if the samples read well",
            )


def _measured(table: Path, test_scores: Sequence[Path]) -> dict[tuple[str, str], float]:
    """BLEU by language pair and what it was measured on."""
    made = manifest.read(table)
    pivot = made.parameters.get("parameters", {}).get("pivot_language")
    found = {
        (f"{pivot}-{language}", "held-out sentences"): float(value["bleu"])
        for language, value in made.metrics.items()
        if isinstance(value, dict) and "bleu" in value
    }
    for place in test_scores:
        scored = manifest.read(place)
        if scored.inputs.get("translator") != made.data_version:
            raise BadInput(
                "these scores are of another translator than the one that shall translate",
                where=place,
                remedy="run the stage translation_benchmark again (in Dagster: materialize the upstream asset)",
            )
        found[str(scored.metrics["pair"]), f"the test set {scored.metrics['test_set']}"] = float(scored.metrics["bleu"])  # fmt: skip
    return found
