from __future__ import annotations

import pytest
import torch
from torch import nn

from retsweep.train.optimiser import adamw, is_matrix, parameter_groups
from tests.train.tiny import TinyModel, protocol


def names(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is q for q in parameters)}


def test_matrices_are_decayed_norms_and_biases_are_not():
    model = TinyModel()
    decayed, undecayed = parameter_groups(model, protocol(weight_decay=0.3))
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.3, 0.0)
    assert names(model, decayed["params"]) == {"embedding.weight", "blocks.0.0.weight", "head.weight"}
    assert names(model, undecayed["params"]) == {
        "blocks.0.0.bias",
        "final_norm.weight",
        "final_norm.bias",
        "head.bias",
    }


def test_a_norm_or_bias_kept_as_a_matrix_is_still_no_matrix():
    table = nn.Parameter(torch.ones(2, 3))
    assert is_matrix("mixer.query.weight", table)
    for name in ("mixer.norm.weight", "mixer.head_norm_weight", "mixer.query.bias"):
        assert not is_matrix(name, table)


def test_everything_is_one_group():
    model = TinyModel()
    (group,) = parameter_groups(model, protocol(decay="everything"))
    assert len(group["params"]) == len(list(model.parameters()))


def test_decay_alone_shrinks_by_rate_times_decay():
    model = TinyModel()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = adamw(model, protocol(learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert optimiser.defaults["fused"]
    for name, parameter in model.named_parameters():
        factor = 0.95 if name.endswith("weight") and "norm" not in name else 1.0
        assert parameter.detach() == pytest.approx(before[name] * factor)
