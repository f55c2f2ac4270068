"""Imports go one way only: jobs -> assets -> pipelines -> models."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("models", "pipelines", "assets", "jobs")
MAY_IMPORT = {
    "models": {"models"},
    "pipelines": {"models", "pipelines"},
    "assets": {"pipelines", "assets"},
    "jobs": {"pipelines", "assets", "jobs"},
}


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(layer: str) -> None:
    for path in (ROOT / layer).rglob("*.py"):
        found = imported(path)
        assert found & set(LAYERS) <= MAY_IMPORT[layer], path
        if layer in ("models", "pipelines"):
            assert not {name for name in found if name.startswith("dagster")}, path


def test_every_stage_is_declared_without_importing_torch() -> None:
    specs = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "pipelines").rglob("spec.py"))
    ]
    assert len(specs) > 10
    script = f"import sys, importlib\nfor name in {specs!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
