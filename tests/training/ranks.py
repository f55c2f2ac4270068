"""Ranks of the toy training, as processes of their own, and what they leave behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

STEPS = 6
SHAPE: dict[str, Any] = {
    "steps": STEPS, "batch_size": 8, "pack_tokens": 48, "warmup_steps": 2, "precision": "fp32", "checkpoint_every": 2,
    "learning_rates": {"visual": 1e-2, "language_model": 3e-3}, "gradient_clipping": 0.5,
}  # fmt: skip


def launch(folder: Path, ranks: int, *runs: dict[str, Any], alone: bool = False) -> list[int]:
    """Run the toy on so many ranks, and return their exit codes; `alone`: they are the first run's own."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = folder / "specs.json"
    told = [{**run, "optimisation": {**SHAPE, **run.get("optimisation", {})}} for run in runs]
    specs.write_text(json.dumps(told, default=str))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = dict(os.environ, OMP_NUM_THREADS="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    arguments = [sys.executable, "-m", "tests.training.toy", str(specs), *(["alone"] if alone else [])]
    started = []
    for rank in map(str, range(ranks)):
        log = (folder / f"log-{rank}.txt").open("w")
        environment = dict(common, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=str(ranks))
        started.append(subprocess.Popen(arguments, env=environment, stdout=log, stderr=log))
    codes = []
    try:
        for process in started:
            codes.append(process.wait(timeout=1200))
            if codes[-1] < 0:
                break  # the others wait for the killed one, as they would until torchrun ends them
    finally:
        for process in started:
            process.kill()
            process.wait()
    return codes


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
