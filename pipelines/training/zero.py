"""Training under DeepSpeed ZeRO 1, 2 and 3, and how each lays out what a rank holds of a parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from pipelines.training.engine import WEIGHT, Engine, Fragment, Stepped, Stored
from pipelines.training.samples import Batch
from pipelines.training.spec import Optimisation

PERSISTENT_ELEMENTS = 100_000
"""Parameters no larger than this stay whole on every rank under ZeRO-3: fetching them costs more than keeping them."""


@dataclass(frozen=True)
class Held:
    """The stretch of a parameter that this rank holds, and where it lies in the optimiser's flat tensor."""

    name: str
    start: int
    elements: int
    flat: Tensor
    offset: int

    def of(self, tensor: Tensor) -> Tensor:
        """The parameter's stretch of a tensor that is laid out as `flat`."""
        return tensor.narrow(0, self.offset, self.elements)


class ZeroEngine(Engine):
    """Weights, gradients and optimiser state shared out over the ranks; float32 masters beside bf16 weights."""

    def __init__(self, model: nn.Module, optimisation: Optimisation) -> None:
        super().__init__(model, optimisation)
        self._names = {id(one): name for name, one in model.named_parameters()}
        self._engine: Any = deepspeed.initialize(
            model=model, optimizer=self.optimizer, config=self._config()
        )[0]
        self._zero: Any = self._engine.optimizer
        self.optimizer = self._zero.optimizer

    def _config(self) -> dict[str, Any]:
        return {
            # Formal: the loop decides how many rows there are, and when a step is taken.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            # Left to DeepSpeed, every backward pass would end a step, and ZeRO-2 would drop all gradients but the last.
            "managed_gradient_accumulation": False,
            "gradient_clipping": self.optimisation.gradient_clipping,
            "bf16": {"enabled": self.precision == "bf16"},
            "zero_optimization": {
                "stage": self.optimisation.zero_stage,
                # Overlapping changed gradients in several releases, and hides nothing on a CPU.
                "overlap_comm": False,
                "contiguous_gradients": True,
                "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS,
            },
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1_000_000_000,
            "wall_clock_breakdown": False,
        }

    def forward(self, batch: Batch) -> Tensor:
        losses: Tensor = self._engine(
            batch.ids, batch.labels, batch.pixels, packing=batch.packing, supervision=batch.supervision
        )
        return losses

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages over the ranks.
        self._engine.backward(loss * self.ranks)

    def step(self) -> Stepped:
        self._engine.step()
        return Stepped(float(self._engine.get_global_grad_norm()), self._engine.was_step_applied())

    def _held(self) -> Iterator[Held]:
        if self.optimisation.zero_stage == 3:
            for parameter, (group, offset, elements) in self._places_in_stage_3():
                start = self.rank * elements
                inside = min(elements, parameter.ds_numel - start)
                if inside > 0:
                    flat = self._zero.fp32_partitioned_groups_flat[group]
                    yield Held(self._names[id(parameter)], start, inside, flat, offset)
            return
        for group, flat in zip(
            self._zero.bit16_groups, self._zero.single_partition_of_fp32_groups, strict=True
        ):
            for parameter in group:
                if (fragment := parameter._hp_mapping) is not None:
                    inside, at = fragment.lp_fragment_address, fragment.hp_fragment_address
                    yield Held(self._names[id(parameter)], inside.start, inside.numel, flat, at.start)

    def _places_in_stage_3(self) -> Iterator[tuple[Any, tuple[int, int, int]]]:
        for group in self._zero.fp16_groups:
            for parameter in group:
                yield parameter, self._zero.grad_position[self._zero.get_param_id(parameter)]

    def fragments(self) -> Iterator[Fragment]:
        for held in self._held():
            state = self.optimizer.state.get(held.flat, {})
            tensors = {kind: value for kind, value in state.items() if value.shape == held.flat.shape}
            values = {WEIGHT: held.flat, **tensors}
            yield Fragment(
                held.name, held.start, {kind: held.of(value).detach() for kind, value in values.items()}
            )

    def scalars(self) -> dict[str, dict[str, float]]:
        return {
            held.name: {
                kind: float(value) for kind, value in self.optimizer.state[held.flat].items() if value.ndim == 0
            }
            for held in self._held()
            if held.flat in self.optimizer.state
        }  # fmt: skip

    @torch.no_grad()
    def restore(self, stored: Stored) -> None:
        for held in self._held():
            state = self.optimizer.state[held.flat]
            for kind in stored.kinds:
                if kind != WEIGHT and kind not in state:
                    state[kind] = torch.zeros_like(held.flat)
                target = held.flat if kind == WEIGHT else state[kind]
                held.of(target).copy_(stored.read(held.name, kind, held.start, held.elements))
            state.update({kind: torch.tensor(value) for kind, value in stored.scalars(held.name).items()})
        if self.optimisation.zero_stage == 3:
            self._renew_stage_3()
        else:
            self._zero.update_lp_params()

    def _renew_stage_3(self) -> None:
        """Copy the float32 masters over the weights that are computed with, as a step does."""
        zero = self._zero
        zero.checkpoint_event_prologue()
        for number, flat in enumerate(zero.fp32_partitioned_groups_flat):
            if flat.numel():
                zero.fp16_partitioned_groups_flat[number].copy_(flat)
            renewed = zero.unflatten(
                zero.fp16_partitioned_groups_flat[number], zero.fp16_partitioned_groups[number]
            )
            for part, value in zip(zero.fp16_partitioned_groups[number], renewed, strict=True):
                part.data = value
        zero.checkpoint_event_epilogue()

    def trained_weights(self) -> dict[str, Tensor]:
        weights = {}
        for name, parameter in self.trained_names():
            full = safe_get_full_fp32_param(parameter)
            if self.rank == 0:
                weights[name] = full.detach().float().cpu().clone()
        return weights
