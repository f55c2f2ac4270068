"""The dry run as text."""

from __future__ import annotations

from pipelines.dry_run.reckon import Reckoning, SourceReckoning, StageReckoning
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
    rates = found.rates
    lines += [
        "",
        f"data: at {rates.images:g} images and {rates.sentences:g} sentences a second (given, not measured), on one machine",
        *(_source(name, source) for name, source in found.sources.items()),
        "",
        f"GPU-hours in all: {_hours(found.gpu_hours)}; from the first row to the tuned model, one thing after another: "
        f"{_days(found.hours / 24)}",
    ]
    return "\n".join(lines)


def _source(name: str, source: SourceReckoning) -> str:
    told = "a slice of " if source.slice else ""
    translated = (
        f"; {source.sentences:,} sentences to translate, {_days(source.translating_hours / 24)}"
        if source.sentences
        else ""
    )
    return f"  {name:<16} {told}{source.rows:,} rows, {_days(source.fetching_hours / 24)} if each image is fetched{translated}"


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
        f"           activations {stage.activations_gb:.1f} ({_at_once(training, stage)}, {checkpointed} "
        f"gradient checkpointing, {stage.accumulation} passes a step): {verdict} into {memory:g}",
        f"  rows     {_rows(training, stage)}",
        f"  trainer  {_trainer(training)}",
        f"  work     {stage.tokens_per_sample:,} tokens a sample, {stage.tokens_per_step:,} a step, "
        f"{stage.flops_per_step / 1e15:.2f} PFLOP a step",
        f"  time     {_hours(stage.gpu_hours)} GPU-hours, {_days(stage.days)}; "
        f"{stage.samples_per_second_per_gpu:.1f} samples/s per GPU",
    ]


def _at_once(training: Training, stage: StageReckoning) -> str:
    if training.pack_tokens is None:
        return f"{stage.rows_at_once} samples at once"
    return f"a full row of {training.pack_tokens:,} tokens at once"


def _rows(training: Training, stage: StageReckoning) -> str:
    if training.pack_tokens is None:
        return f"{stage.rows_per_step} padded ones a step, a sample each: padding is not reckoned with"
    fill = stage.tokens_per_step / (stage.rows_per_step * training.pack_tokens)
    uneven = "" if stage.evenness == 1 else f"; the GPUs are busy for {stage.evenness:.0%} of a step"
    multiple = training.packs_multiple
    always = f", whatever the number of GPUs a multiple of {multiple}" if multiple > 1 else ""
    return f"{stage.rows_per_step} packed ones a step, {fill:.0%} full{always}{uneven}"


def _trainer(training: Training) -> str:
    on = {"Liger's kernels": training.fused_kernels, "torch.compile": training.compile}
    kept = "" if training.keep_every is None else f", each {training.keep_every:,}th for good"
    said = [
        f"{training.data_workers} processes per GPU read ahead",
        f"a checkpoint every {training.checkpoint_every:,} steps, {training.checkpoints_kept} kept{kept}",
        f"a gradient that is no number: {training.not_finite}",
        *(name for name, is_on in on.items() if is_on),
    ]
    return "; ".join(said)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def _days(days: float) -> str:
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"


def _billions(count: int) -> str:
    return f"{count / 1e9:.3f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"
