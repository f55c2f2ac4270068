"""Muon with AdamW: each parameter is updated by the one it belongs to, and the state survives a round trip."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pipelines.training.muon import MuonAdamW, parameter_groups


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 10, (6,), generator=generator)
    model(ids).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def make(model: nn.Module) -> MuonAdamW:
    return MuonAdamW(parameter_groups(model, 1e-2), betas=(0.9, 0.95), weight_decay=0.0)


def test_matrices_get_orthogonal_updates_and_embeddings_do_not() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    step(model, make(model), 0)
    change = model.state_dict()["1.weight"] - before["1.weight"]
    other = network()
    other(torch.randint(0, 10, (6,), generator=torch.Generator().manual_seed(0))).square().sum().backward()

    def spread(matrix: torch.Tensor) -> float:
        """How far the four greatest singular values lie apart; the gradient of six samples has few."""
        singular = torch.linalg.svdvals(matrix)
        return float(singular[0] / singular[3])

    assert spread(change) < 2 < spread(other.get_parameter("1.weight").grad)
    embedding_change = model.state_dict()["0.weight"] - before["0.weight"]
    assert torch.allclose(embedding_change[embedding_change != 0].abs(), torch.tensor(1e-2), rtol=1e-2)


def test_a_restored_optimizer_goes_on_with_the_same_bits() -> None:
    model = network()
    optimizer = make(model)
    step(model, optimizer, 0)
    other = network()
    other.load_state_dict(model.state_dict())
    restored = make(other)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    step(model, optimizer, 1)
    step(other, restored, 1)

    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
