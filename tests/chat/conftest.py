"""A real model, as training publishes it, with random weights: what it says means nothing, and how it is said is what counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tables


@pytest.fixture(scope="session")
def model_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.vision_language import assemble
    from pipelines.lake import manifest

    folder = tmp_path_factory.mktemp("chat")
    inputs = tables.training_inputs(folder)
    model = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"]))
    return tables.publish(folder / "models" / "blend", model.save)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from pipelines.world.render import jpeg
    from pipelines.world.scenes import draw_scenes

    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{number}.jpg" for number in range(3)]
    for file, scene in zip(files, draw_scenes(3, seed=4), strict=True):
        file.write_bytes(jpeg(scene))
    return files
