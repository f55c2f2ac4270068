"""The dry run as text."""

from __future__ import annotations

from pipelines.dry_run.reckon import Reckoning, StageReckoning
from pipelines.systems.recipe import System, Training


def page(system: System, found: Reckoning) -> str:
    """Tables for a terminal."""
    hardware = system.hardware
    lines = [
        f"{system.name}: {system.description}",
        f"reckoned for {hardware.gpus} x {hardware.gpu} at an MFU of {found.mfu:.0%} (given, not measured)",
        "",
        f"parameters: {_billions(sum(found.parameters.values()))}, {found.image_tokens} tokens per image",
    ]
    for name, stage in found.stages.items():
        lines += ["", *_stage(name, system.stages[name], stage, hardware.memory_gb)]
    lines += ["", f"GPU-hours in all: {found.gpu_hours:,.0f}"]
    return "\n".join(lines)


def _stage(name: str, training: Training, stage: StageReckoning, memory: float) -> list[str]:
    rows = [f"{name}: {stage.steps:,} steps of {training.batch_size} samples"]
    rows += [f"  trained  {part:<24}{_billions(count):>10}" for part, count in stage.trained.items()]
    rows += [f"  frozen   {part:<24}{_billions(count):>10}" for part, count in stage.frozen.items()]
    by_stage = "   ".join(
        f"{'*' if number == stage.zero_stage else ''}ZeRO-{number} {size:.1f}"
        for number, size in stage.memory_gb.items()
    )
    verdict = "fits" if stage.fits else "does not fit"
    mixture = ", ".join(
        f"{source} {share:.1%} ({training.epochs_of(source):.2f} epochs)"
        for source, share in training.mixture.items()
    )
    checkpointed = "with" if training.gradient_checkpointing else "without"
    return [
        *rows,
        f"  blend    {mixture}",
        f"  memory   GB per GPU: {by_stage}",
        f"           activations {stage.activations_gb:.1f} ({stage.samples_per_gpu} samples at once, {checkpointed} "
        f"gradient checkpointing, {stage.accumulation} passes a step): {verdict} into {memory:g}",
        f"  work     {stage.tokens_per_sample:,} tokens a sample, {stage.tokens_per_step:,} a step, "
        f"{stage.flops_per_step / 1e15:.2f} PFLOP a step",
        f"  time     {stage.gpu_hours:,.0f} GPU-hours, {stage.days:.1f} days; "
        f"{stage.samples_per_second_per_gpu:.1f} samples/s per GPU",
    ]


def _billions(count: int) -> str:
    return f"{count / 1e9:.3f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"
