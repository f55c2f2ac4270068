"""DeepSpeed puts a model where torch puts its batches, whatever the environment says of devices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = """
import importlib.machinery, os, sys, types
import torch
import transformers
torch.cuda.is_available = lambda: {gpu}
deepspeed = types.ModuleType("deepspeed")
deepspeed.__spec__ = importlib.machinery.ModuleSpec("deepspeed", None)
deepspeed.ops = types.SimpleNamespace(__compatible_ops__={{}})
sys.modules["deepspeed"] = deepspeed
import pipelines.training.engine
print(os.environ["DS_ACCELERATOR"])
"""


@pytest.mark.parametrize(
    ("gpu", "container", "expected"), [(True, {}, "cuda"), (False, {"NVIDIA_VISIBLE_DEVICES": "all"}, "cpu")]
)
def test_the_accelerator_is_a_gpu_where_torch_has_one(
    gpu: bool, container: dict[str, str], expected: str
) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DS_ACCELERATOR", "NVIDIA_VISIBLE_DEVICES")
    }
    looked = subprocess.run(
        [sys.executable, "-c", LOOK.format(gpu=gpu)],
        env={**environment, **container}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert looked.returncode == 0, looked.stderr[-2000:]
    assert looked.stdout.split()[-1] == expected
