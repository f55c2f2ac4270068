"""The rules by which tools read answers, one module per tool, as they stand at the named version.

Only `robust` is ours, and only it may be tuned. The others reproduce a tool so that its published scores can be
compared with, its faults included; what each does was measured against the tool itself, and
`tests/benchmarks/parity` holds what the tools said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.benchmarks.profiles import lmms_eval, robust, vlmevalkit

LETTER_EXTRACTORS: dict[str, Callable[[str, Sequence[str]], tuple[str | None, str]]] = {
    "robust": robust.letter,
    "vlmevalkit": vlmevalkit.letter,
    "parrot-2024-08": vlmevalkit.letter_of_august_2024,
    "lmms-eval": lmms_eval.letter,
}
"""By profile: (answer, options) -> (letter or None, how it was found)."""
