"""A training that every test of pods runs: real, over two nodes, and small."""

from __future__ import annotations

from pathlib import Path

from pipelines.launch.spec import JobSpec, Resources
from pipelines.training.spec import PRETRAIN, Optimisation, PretrainSpec

STEPS = 40
TWO_NODES = Resources(nodes=2, cpus=1, memory="4Gi", scratch="1Gi", shared_memory="64Mi", spot=True)


def job(inputs: dict[str, Path], output: Path) -> JobSpec:
    spec = PretrainSpec(
        output=output,
        processes=2,
        language_model=inputs["language_model"],
        vision=inputs["vision"],
        shards={"week-1": inputs["shards"]},
        pivot_language="en",
        prompts=["Describe the picture."],
        optimisation=Optimisation(
            steps=STEPS, batch_size=8, learning_rates={"visual": 1e-3}, warmup_steps=2, checkpoint_every=4
        ),
    )
    return JobSpec(
        "tiny/pretrained", PRETRAIN.module, spec, distributed=True, resources=TWO_NODES, fingerprint="f"
    )
