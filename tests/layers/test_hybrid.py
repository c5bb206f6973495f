"""The two forms of head-split layers."""

from __future__ import annotations

import pytest
import torch

from retsweep.layers.decays import log_decays
from retsweep.layers.hybrid import HybridSpec
from retsweep.spec import SpecError
from retsweep.spec.layer import Shape
from tests.layers.checks import (
    built,
    check_causal,
    check_forms,
    check_operations,
    check_parameters,
    check_state,
    forms,
    inputs,
    layer,
)

SHAPE = Shape(32, 4)
VARIANTS = {
    "two_stage 1:3": ("layer.hybrid.attention_heads=1",),
    "two_stage 3:1, xpos": (
        "layer.hybrid.attention_heads=3",
        "layer.attention.position=xpos",
        "layer.msr.position=xpos",
    ),
    "two_stage, wide values": ("layer.msr.value_expansion=2", "layer.hybrid.decays=full"),
    "two_stage, attention twice": ("layout.mixer=attention",),
    "two_stage, chunked": ("layer.msr.form=chunkwise", "layer.msr.chunk=4"),
    "direct": ("layer.hybrid.form=direct", "layer.hybrid.attention_heads=1"),
    "direct, wide values": ("layer.hybrid.form=direct", "layer.msr.value_expansion=2"),
    "direct, full decays": ("layer.hybrid.form=direct", "layer.hybrid.decays=full"),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def hybrid(request: pytest.FixtureRequest) -> HybridSpec:
    spec = layer("hybrid", *request.param)
    assert isinstance(spec, HybridSpec)
    return spec


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_variant_has_equal_forms(hybrid: HybridSpec, dtype: torch.dtype) -> None:
    check_forms(built(hybrid, SHAPE, dtype), inputs(dtype=dtype, d_model=32))


def test_every_variant_is_counted(hybrid: HybridSpec) -> None:
    check_parameters(hybrid, SHAPE)
    check_operations(hybrid, SHAPE)
    check_state(hybrid, SHAPE)


def test_direct_is_causal() -> None:
    check_causal(
        built(layer("hybrid", "layer.hybrid.form=direct", "layer.hybrid.attention_heads=1")),
        forms()["forward"],
    )


def test_a_leaking_half_makes_a_leaking_layer() -> None:
    assert layer("hybrid", "layer.attention.mask=leaky").leaky
    assert not layer("hybrid").leaky


def test_own_decays_span_the_schedule_and_full_ones_are_its_last() -> None:
    own = layer("hybrid", "layer.hybrid.attention_heads=5").log_decays(8)
    full = layer("hybrid", "layer.hybrid.attention_heads=5", "layer.hybrid.decays=full").log_decays(8)
    assert own == log_decays("retnet", 3)
    assert full == log_decays("retnet", 8)[5:]


def test_published_form_is_the_composition_that_it_claims() -> None:
    """Attention and retention as layers of their own on the narrowed input."""
    mixer = built(layer("hybrid", "layer.hybrid.attention_heads=1"), SHAPE, torch.float64)
    x = inputs(dtype=torch.float64, d_model=32)
    assert mixer.attention_in.out_features == 8
    assert mixer.mixer_in.out_features == 24
    halves = mixer.attention(mixer.attention_in(x)), mixer.mixer(mixer.mixer_in(x))
    torch.testing.assert_close(mixer(x), mixer.out(torch.cat(halves, -1)))


def test_heads_are_counted_by_kind() -> None:
    assert layer("hybrid", "layer.hybrid.attention_heads=3").heads_by_kind(8) == (3, 5)
    assert layer("hybrid").heads_by_kind(8) == (4, 4)
    assert layer("hybrid", "layout.mixer=attention").heads_by_kind(8) == (8, 0)


@pytest.mark.parametrize("count", [0, 4, -1, 9])
def test_a_split_needs_both_kinds(count: int) -> None:
    with pytest.raises(SpecError, match=r"without a head; accepted: 1 to 3"):
        layer("hybrid", f"layer.hybrid.attention_heads={count}").check(SHAPE)


def test_errors_name_what_is_accepted() -> None:
    with pytest.raises(SpecError, match="two heads or more"):
        layer("hybrid").check(Shape(8, 1))
    with pytest.raises(SpecError, match="mixes nothing"):
        layer("hybrid", "layout.mixer=none").check(SHAPE)
    with pytest.raises(SpecError, match="accepted with attention: form=two_stage"):
        layer("hybrid", "layout.mixer=attention", "layer.hybrid.form=direct").check(SHAPE)
    with pytest.raises(SpecError, match="even head dimension"):
        layer("hybrid").check(Shape(12, 4))


def test_columns_name_both_positions() -> None:
    assert layer("hybrid").columns()["position"] == "rotary"
    assert layer("hybrid", "layer.msr.position=xpos").columns()["position"] == "rotary+xpos"
    assert layer("hybrid", "layer.hybrid.form=direct").columns()["hybrid_form"] == "direct"
