"""The batches of a rank, in the plan's order, read and decoded ahead of the step that wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.errors import BadInput
from pipelines.training.packs import Pack
from pipelines.training.plan import PackPlan
from pipelines.training.samples import Batch, Samples, collate

STEPS_AHEAD = 4


@dataclass(frozen=True)
class StepBatches(Dataset[list[Batch]]):
    """Step -> the batches that a rank computes one after another; all ranks have equally many."""

    samples: Samples
    plan: PackPlan
    rank: int
    ranks: int
    pad: int
    rows: int | None
    """Rows of a batch; without it, one where rows are packed, else all."""
    width: int | None = None
    """Tokens of a row, where all rows shall be equally long."""

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> list[Batch]:
        packs = self.plan.packs(step)
        most = -(-len(packs) // self.ranks)
        at_once = self.rows or (1 if self.plan.packed else most)
        if self.plan.packed and at_once > 1:
            at_once = 1
        mine = self.plan.share(step, self.rank, self.ranks)
        return [self._batch(mine[first : first + at_once]) for first in range(0, most, at_once)]

    def _batch(self, packs: list[Pack]) -> Batch:
        """The packs as one batch; without any, a row of padding, so that no rank waits for this one."""
        samples = [self.samples.sample(sample, epoch) for pack in packs for epoch, sample in pack.draws]
        batch = collate(
            samples, pad=self.pad, groups=self.plan.groups, packed=self.plan.packed,
            width=self.width,
        )  # fmt: skip
        if batch.supervised != (planned := sum(pack.supervised for pack in packs)):
            raise BadInput(
                f"the plan counts {planned} supervised tokens where the samples have {batch.supervised}",
                where="the pack plan",
                remedy="it was made with another tokenizer or template: run the stage that makes the plan again",
            )
        return batch


def load_ahead(batches: StepBatches, first: int, workers: int) -> Iterator[list[Batch]]:
    """The batches of the steps from `first` to the plan's last."""
    loader = DataLoader(
        batches, batch_size=None, sampler=range(first, len(batches)), num_workers=workers,
        prefetch_factor=STEPS_AHEAD if workers else None, pin_memory=torch.cuda.is_available() and workers > 0,
    )  # fmt: skip
    return iter(loader)
