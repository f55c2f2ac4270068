"""The engine: DeepSpeed behind a handful of calls, so that the loop reads without it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu" if not os.environ.get("NVIDIA_VISIBLE_DEVICES") else "cuda")

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from pipelines.training.muon import MuonAdamW, parameter_groups
from pipelines.training.precision import resolve_precision
from pipelines.training.spec import Optimisation

CHECKPOINT_TAG = "state"
# DeepSpeed would compile a shared-memory exchange with gcc on the first run; killed meanwhile, that build
# leaves a lock on which later runs wait for ever. On a CPU, gloo does: measured on two ranks, it is as fast.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def join_group() -> tuple[int, int]:
    """Join the ranks that torchrun started (or be the only one); return (rank, ranks)."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(port))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return dist.get_rank(), dist.get_world_size()


def sum_over_ranks(*values: float) -> list[float]:
    """Each value summed over the ranks, in float64."""
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


class Engine:
    """A model under training. Parts that have no learning rate are frozen."""

    def __init__(self, model: nn.Module, optimisation: Optimisation) -> None:
        self.optimisation = optimisation
        self.precision = resolve_precision(optimisation.precision)
        self.ranks = dist.get_world_size()
        groups: list[dict[str, Any]] = []
        for name, part in model.named_children():
            peak = optimisation.learning_rates.get(name)  # type: ignore[call-overload]
            part.requires_grad_(peak is not None)
            if peak is None:
                continue
            if optimisation.optimizer == "muon":
                groups += parameter_groups(part, peak)
            else:
                groups.append({"params": list(part.parameters()), "lr": peak, "peak": peak})
        make = MuonAdamW if optimisation.optimizer == "muon" else torch.optim.AdamW
        optimizer = make(groups, betas=optimisation.betas, weight_decay=optimisation.weight_decay)
        # ZeRO keeps float32 master weights beside bf16 ones; without it the weights stay float32.
        self._cast = self.precision == "bf16" and optimisation.zero_stage > 0
        self._autocast = self.precision == "bf16" and optimisation.zero_stage == 0
        self._engine: Any = deepspeed.initialize(model=model, optimizer=optimizer, config=self._config())[0]

    def _config(self) -> dict[str, Any]:
        batch = self.optimisation.batch_size
        if batch % self.ranks:
            raise ValueError(f"batch_size {batch} cannot be shared by {self.ranks} ranks")
        return {
            "train_micro_batch_size_per_gpu": batch // self.ranks,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": self.optimisation.gradient_clipping,
            "bf16": {"enabled": self._cast},
            "zero_optimization": {
                "stage": self.optimisation.zero_stage,
                # Overlapping changed gradients in several releases, and hides nothing on a CPU.
                "overlap_comm": False,
                "contiguous_gradients": True,
            },
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1_000_000_000,
            "wall_clock_breakdown": False,
        }

    def set_rate(self, share: float) -> None:
        """Set every part's learning rate to this share of its peak."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = group["peak"] * share

    def forward(self, ids: Tensor, labels: Tensor, pixels: Tensor | None) -> Tensor:
        """Summed loss over the supervised tokens of this rank's part of the batch."""
        if pixels is not None and self._cast:
            pixels = pixels.to(torch.bfloat16)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._autocast):
            loss: Tensor = self._engine(ids, labels, pixels)[0]
        return loss

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients. DeepSpeed averages over ranks, so `loss` is multiplied by their number."""
        self._engine.backward(loss * self.ranks)

    def step(self) -> float:
        """Update the trained parts; return the gradient norm before clipping."""
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def save(self, folder: Path, step: int) -> None:
        """Write trained parameters, optimiser state and the number of steps done; all ranks call it together."""
        self._engine.save_checkpoint(
            os.fspath(folder), tag=CHECKPOINT_TAG, client_state={"step": step}, exclude_frozen_parameters=True
        )

    def load(self, folder: Path) -> int:
        """Restore what `save` wrote; return the number of steps done."""
        _, client_state = self._engine.load_checkpoint(
            os.fspath(folder), tag=CHECKPOINT_TAG, load_module_strict=False
        )
        return int(client_state["step"])

    def trained_weights(self) -> dict[str, Tensor]:
        """The trained parameters, by name, in float32; all ranks call it together."""
        weights = {}
        for name, parameter in self._engine.module.named_parameters():
            if parameter.requires_grad:
                full = safe_get_full_fp32_param(parameter)
                weights[name] = (parameter if full is None else full).detach().float().clone()
        return weights
