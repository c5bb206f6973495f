import dataclasses

import pytest
import torch

from retsweep import model
from retsweep.preflight.shrink import built, shrunken, tokens, without_leak
from retsweep.spec import SpecError
from tests.costs.specs import loaded
from tests.preflight.neighbour import NeighbourSpec


def test_the_copy_has_the_layers_and_heads_and_little_else():
    spec = loaded("scale=paper", "layout=type_c", "layout.attention=3", "protocol=published")
    copy = shrunken(spec)
    assert copy.layers == spec.trained_layers
    assert copy.heads_by_kind == spec.heads_by_kind
    assert (copy.scale.layers, copy.scale.heads, copy.scale.context) == (12, 8, 127)
    assert copy.scale.shape.head_dim == 4
    assert copy.model.dropout == 0.0
    assert copy.protocol == spec.protocol
    assert sum(model.parameters(copy).values()) < 150_000


def test_the_head_is_the_smallest_that_every_layer_accepts():
    class Picky(NeighbourSpec):
        def check(self, shape):
            if shape.head_dim not in (16, 96):
                raise SpecError(f"a head of {shape.head_dim}")

    spec = loaded("scale=paper")
    picky = dataclasses.replace(spec, layers=(*spec.layers[1:], Picky()))
    assert shrunken(picky).scale.shape.head_dim == 16


@pytest.mark.parametrize(("heads", "d_model", "head_dim"), [(1, 32, 16), (32, 64, 4), (2, 6, 8), (3, 33, 6)])
def test_few_heads_are_not_too_narrow(heads, d_model, head_dim):
    spec = loaded("scale=tiny", "tokenizer=bytes")
    scale = dataclasses.replace(spec.scale, heads=heads, d_model=d_model, layers=1)
    one = dataclasses.replace(spec, scale=scale, layers=(NeighbourSpec(),))
    assert shrunken(one).scale.shape.head_dim == head_dim


def test_leaks_are_closed_and_the_weights_still_fit():
    spec = shrunken(loaded("scale=tiny", "tokenizer=bytes", "protocol=published", "layout=type_c"))
    closed = without_leak(spec)
    assert spec.leaky
    assert not closed.leaky
    assert model.parameters(spec) == model.parameters(closed)


def test_moved_weights_leave_no_bias_at_zero():
    spec = shrunken(loaded("scale=tiny", "tokenizer=bytes"))
    fresh = dict(built(spec, torch.float32, moved=False).named_parameters())
    for name, parameter in built(spec, torch.float32).named_parameters():
        assert 0.03 < (parameter - fresh[name]).std() < 0.3, name
    assert all(torch.equal(a, b) for a, b in zip(tokens(2, 5), tokens(2, 5), strict=True))
