"""Guarantees of finding weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import weights
from models.weights import WeightsError


def folder_with(path: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


def test_the_digest_of_a_folder_depends_on_names_and_content_alone(tmp_path: Path) -> None:
    first = folder_with(tmp_path / "a", {"x": "1", "deep/y": "2"})
    second = folder_with(tmp_path / "b", {"deep/y": "2", "x": "1", ".cache/lock": "9"})
    assert weights.digest(first) == weights.digest(second)
    assert weights.digest(first) != weights.digest(folder_with(tmp_path / "c", {"x": "1", "deep/z": "2"}))
    assert weights.digest(first) != weights.digest(folder_with(tmp_path / "d", {"x": "1", "deep/y": "3"}))


def test_a_path_that_is_neither_here_nor_a_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such model file or folder") as caught:
        weights.locate(tmp_path / "nothing")
    assert caught.value.where == str(tmp_path / "nothing")
    assert caught.value.remedy


def test_a_hub_id_that_no_hub_gives_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="the model hub did not give it") as caught:
        weights.locate("nobody/no-such-model")
    assert caught.value.where == "nobody/no-such-model"


def test_a_pinned_digest_is_held_against_the_content(tmp_path: Path) -> None:
    model = folder_with(tmp_path / "model", {"model.safetensors": "weights"})
    pinned = weights.digest(model)
    assert weights.locate(model, sha256=pinned.upper()) == model
    folder_with(model, {"model.safetensors": "other weights"})
    with pytest.raises(WeightsError, match=pinned):
        weights.locate(model, sha256=pinned)


def test_a_shortened_digest_pins_nothing_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no SHA-256"):
        weights.locate(folder_with(tmp_path / "model", {"x": "1"}), sha256="abc123")
