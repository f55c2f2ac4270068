"""What the stages of a published system ask of a cluster where its recipe does not say: enough for 14 B parameters."""

from __future__ import annotations

import math

from pipelines.launch.spec import Resources

GPUS_PER_NODE = 8


def needs(gpus: int) -> dict[str, Resources]:
    """By stage, `default` for the others. `gpus`: of the trainings, on nodes of eight."""
    one_gpu = _gpus(1)
    return {
        "default": Resources(cpus=8, memory="32Gi", scratch="100Gi", shared_memory="4Gi"),
        # A language model's weights, in float32 and as they are written, on a machine without GPUs.
        "published_part": Resources(cpus=8, memory="120Gi", scratch="250Gi", shared_memory="4Gi"),
        "clip_scores": one_gpu,
        "answers": one_gpu,
        "pretrained": _gpus(gpus),
        "finetuned": _gpus(gpus),
    }


def _gpus(number: int) -> Resources:
    """That many GPUs with their shares of a p4de or a2-ultragpu node: an eighth each, and some left for the node itself."""
    per_node = min(number, GPUS_PER_NODE)
    return Resources(
        nodes=math.ceil(number / per_node), gpus=per_node, cpus=8 * per_node, memory=f"{100 * per_node}Gi",
        scratch=f"{100 * per_node}Gi", shared_memory=f"{8 * per_node}Gi",
    )  # fmt: skip
