"""The engine: what is trained at which rate, and one step of it; with whole weights on every rank, or under ZeRO."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

# DeepSpeed's own look for a GPU wants packages that a CPU machine need not have; and batches go where torch says.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
import torch.distributed as dist
from torch import Tensor, nn

from models.parts import trained_parts
from pipelines.errors import BadInput
from pipelines.training.muon import MuonAdamW, parameter_groups
from pipelines.training.precision import resolve_precision
from pipelines.training.samples import Batch
from pipelines.training.spec import Optimisation

WEIGHT = "weight"
# DeepSpeed would compile a shared-memory exchange with gcc on the first run; killed meanwhile, that build
# leaves a lock on which later runs wait for ever. On a CPU, gloo does: measured on two ranks, it is as fast.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def join_group() -> tuple[int, int]:
    """Join the ranks that torchrun started (or be the only one); return (rank, ranks)."""
    if "RANK" not in os.environ:
        # Port 0: whichever is free when it is opened. One that was probed for may be taken by then.
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT="0")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return dist.get_rank(), dist.get_world_size()


@dataclass(frozen=True)
class Fragment:
    """A stretch of one trained parameter, flattened, that this rank holds: its float32 weight and optimiser state."""

    name: str
    start: int
    values: dict[str, Tensor]
    """`weight` and the optimiser's own names -> (elements) float32."""


class Stored(Protocol):
    """What a checkpoint gives back, whichever ranks wrote it."""

    @property
    def kinds(self) -> list[str]:
        """`weight`, and the names of the optimiser's state."""
        ...

    def read(self, name: str, kind: str, start: int, elements: int) -> Tensor: ...

    def scalars(self, name: str) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Stepped:
    """What came of a step: the gradient norm before clipping, and whether it was taken."""

    gradient_norm: float
    taken: bool


def freeze_and_group(model: nn.Module, optimisation: Optimisation) -> list[dict[str, Any]]:
    """Freeze every part without a learning rate (`models.parts`); return the optimiser's groups for the rest.

    Raises:
        BadInput: a learning rate names a part that the model does not have.
    """
    try:
        trained = trained_parts(model, optimisation.learning_rates)
    except KeyError as error:
        raise BadInput(
            str(error.args[0]), where="optimisation.learning_rates", remedy="name parts of this model"
        ) from None
    model.requires_grad_(False)
    by_rate: dict[float, list[nn.Parameter]] = {}
    for part in trained.values():
        for rate, chosen in part.rates.items():
            by_rate.setdefault(rate, []).extend(parameter for _, parameter in chosen)
    for parameters in by_rate.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    if optimisation.optimizer == "muon":
        return [
            group
            for rate, parameters in by_rate.items()
            for group in parameter_groups(model, rate, {id(parameter) for parameter in parameters})
        ]
    return [{"params": parameters, "lr": rate, "peak": rate} for rate, parameters in by_rate.items()]


class Engine(ABC):
    """A model under training. Parts that have no learning rate are frozen."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: str

    def __init__(self, model: nn.Module, optimisation: Optimisation) -> None:
        self.model, self.optimisation = model, optimisation
        self.precision = resolve_precision(optimisation.precision)
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")  # fmt: skip
        if self.device.type == "cuda":
            # Beside bf16, what is left of float32 products may be TF32 (Parrot: bf16 and tf32); alone, float32 is itself.
            torch.set_float32_matmul_precision("high" if self.precision == "bf16" else "highest")
        groups = freeze_and_group(model, optimisation)
        if optimisation.optimizer == "muon":
            self.optimizer = MuonAdamW(
                groups, betas=optimisation.betas, weight_decay=optimisation.weight_decay
            )
        else:
            fused = {"fused": True} if self.device.type == "cuda" else {}
            self.optimizer = torch.optim.AdamW(
                groups, betas=optimisation.betas, weight_decay=optimisation.weight_decay, **fused
            )

    def set_rate(self, share: float) -> None:
        """Set every part's learning rate to this share of its peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """The loss of each supervised token of this rank's batch, float32."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to those of the step: over all ranks, they are summed."""

    @abstractmethod
    def step(self) -> Stepped:
        """Clip, and update the trained parts, unless a gradient is no finite number on any rank."""

    @abstractmethod
    def fragments(self) -> Iterator[Fragment]:
        """What this rank holds of the trained parameters; the fragments of all ranks are the whole, once."""

    @abstractmethod
    def scalars(self) -> dict[str, dict[str, float]]:
        """The optimiser's scalar state (its own step count) by parameter; empty before the first step."""

    @abstractmethod
    def restore(self, stored: Stored) -> None:
        """Take over weights and optimiser state, from any number of ranks; all ranks call it together."""

    @abstractmethod
    def trained_weights(self) -> dict[str, Tensor]:
        """The trained parameters, by name, in float32, on the first rank; all ranks call it together."""

    def frozen_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """What this rank holds of the frozen parameters."""
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                yield name, getattr(parameter, "ds_tensor", parameter).detach()

    def trained_names(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]


def digest_of(tensors: Iterator[tuple[str, Tensor]]) -> str:
    """A digest of tensors' names, types and bytes."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        data: Any = tensor.contiguous().cpu().view(-1).view(torch.uint8).numpy()
        total.update(data)
    return total.hexdigest()


class PlainEngine(Engine):
    """Whole weights and optimiser state on every rank, in float32; bf16 is autocast."""

    def __init__(self, model: nn.Module, optimisation: Optimisation) -> None:
        super().__init__(model, optimisation)
        model.to(self.device)
        self._parameters = [one for _, one in self.trained_names()]

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            losses: Tensor = self.model(
                batch.ids, batch.labels, batch.pixels, packing=batch.packing, supervision=batch.supervision
            )
        return losses

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> Stepped:
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in self._parameters]
        if self.ranks > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            for one, part in zip(self._parameters, parts, strict=True):
                one.grad = part.view_as(one)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.optimisation.gradient_clipping)
        taken = bool(torch.isfinite(norm))
        if taken:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Stepped(float(norm), taken)

    def fragments(self) -> Iterator[Fragment]:
        for number, (name, parameter) in enumerate(self.trained_names()):
            if number % self.ranks == self.rank:
                state = self.optimizer.state.get(parameter, {})
                tensors = {kind: value for kind, value in state.items() if value.shape == parameter.shape}
                values = {WEIGHT: parameter, **tensors}
                yield Fragment(name, 0, {kind: value.detach().flatten() for kind, value in values.items()})

    def scalars(self) -> dict[str, dict[str, float]]:
        return {
            name: {kind: float(value) for kind, value in self.optimizer.state[parameter].items() if value.ndim == 0}
            for name, parameter in self.trained_names()
            if parameter in self.optimizer.state
        }  # fmt: skip

    @torch.no_grad()
    def restore(self, stored: Stored) -> None:
        for name, parameter in self.trained_names():
            state = self.optimizer.state[parameter]
            for kind in stored.kinds:
                value = stored.read(name, kind, 0, parameter.numel()).view_as(parameter)
                if kind == WEIGHT:
                    parameter.copy_(value)
                else:
                    state[kind] = value.to(parameter.device)
            state.update({kind: torch.tensor(value) for kind, value in stored.scalars(name).items()})

    def trained_weights(self) -> dict[str, Tensor]:
        if self.rank:
            return {}
        return {name: one.detach().float().cpu().clone() for name, one in self.trained_names()}


def make_engine(model: nn.Module, optimisation: Optimisation) -> Engine:
    """The engine for the recipe's ZeRO stage."""
    from pipelines.training.zero import ZeroEngine

    return ZeroEngine(model, optimisation) if optimisation.zero_stage else PlainEngine(model, optimisation)
