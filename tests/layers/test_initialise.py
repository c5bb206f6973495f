"""Weights from (seed, name)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retsweep.layers.initialise import initialise


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(400, 300), nn.Linear(400, 300)
        self.norm, self.embedding = nn.LayerNorm(5), nn.Embedding(50, 400)


def started(start: str, seed: int = 0) -> Pair:
    model = Pair()
    initialise(model, seed, start)
    return model


def test_each_name_and_seed_has_values_of_its_own() -> None:
    model = started("fan_in")
    assert torch.equal(model.one.weight, started("fan_in").one.weight)
    assert not torch.equal(model.one.weight, model.two.weight)
    assert not torch.equal(model.one.weight, started("fan_in", seed=1).one.weight)


def test_fan_in_and_torch_have_the_spread_that_they_promise() -> None:
    model = started("fan_in")
    torch.testing.assert_close(model.one.weight.std(), torch.tensor(400**-0.5), rtol=0.02, atol=0)
    assert not model.one.bias.any()
    torch.testing.assert_close(model.embedding.weight.std(), torch.tensor(1.0), rtol=0.03, atol=0)
    model = started("torch")
    for tensor in (model.one.weight, model.one.bias):
        assert 0.9 * 400**-0.5 < tensor.abs().max() <= 400**-0.5
    assert torch.equal(model.norm.weight, torch.ones(5))
    assert torch.equal(model.norm.bias, torch.zeros(5))


def test_torch_start_matches_the_modules_own() -> None:
    ours, theirs = started("torch").one.weight, nn.Linear(400, 300).weight
    torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.02, atol=0)


def test_a_module_without_a_start_is_named_rather_than_filled() -> None:
    with pytest.raises(TypeError, match=r"Conv1d\.weight has no start"):
        initialise(nn.Conv1d(2, 2, 3), 0, "fan_in")
