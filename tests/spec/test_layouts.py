"""Layouts are pure: depth and heads in, layers and AR ratio out."""

from __future__ import annotations

from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retsweep.layers.attention import AttentionSpec
from retsweep.layers.hybrid import HybridSpec
from retsweep.layers.msr import MsrSpec
from retsweep.layers.none import NoneSpec
from retsweep.spec import SpecError, load_spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.pattern import Pattern
from retsweep.spec.layouts.placed import Placed
from retsweep.spec.layouts.type_a import TypeA
from retsweep.spec.layouts.type_b import TypeB
from retsweep.spec.layouts.type_c import TypeC

ATTENTION = AttentionSpec(letter="A")
MSR = MsrSpec(letter="R")
KNOWN: dict[str, LayerSpec] = {
    "attention": ATTENTION,
    "msr": MSR,
    "hybrid": HybridSpec(letter="H", attention=ATTENTION, mixer=MSR),
    "none": NoneSpec(letter="N"),
}
DEPTH = st.integers(1, 48)


@given(depth=DEPTH, data=st.data())
def test_type_a_puts_attention_first_and_type_b_last(depth: int, data: st.DataObject) -> None:
    attention = data.draw(st.integers(0, depth))
    a = TypeA(attention=attention).stack(depth, 8, KNOWN)
    b = TypeB(attention=attention).stack(depth, 8, KNOWN)
    assert [layer.letter for layer in a] == ["A"] * attention + ["R"] * (depth - attention)
    assert b == tuple(reversed(a))


@given(depth=DEPTH, data=st.data())
def test_the_ratio_of_type_a_and_b_counts_layers_and_is_not_reduced(depth: int, data: st.DataObject) -> None:
    attention = data.draw(st.integers(0, depth))
    for layout in (TypeA(attention=attention), TypeB(attention=attention)):
        ratio = layout.ar_ratio(layout.stack(depth, 8, KNOWN), 8)
        if attention == depth:
            assert ratio == "1:0"
        elif attention == 0:
            assert ratio == "0:1"
        else:
            assert ratio == f"{attention}:{depth - attention}"


@given(heads=st.integers(2, 32), depth=DEPTH, data=st.data())
def test_type_c_splits_the_heads_of_every_layer(heads: int, depth: int, data: st.DataObject) -> None:
    attention = data.draw(st.integers(1, heads - 1))
    layout = TypeC(attention=attention)
    layers = layout.stack(depth, heads, KNOWN)
    assert len(layers) == depth
    assert {layer.heads_by_kind(heads) for layer in layers} == {(attention, heads - attention)}
    assert layout.ar_ratio(layers, heads) == f"{attention}:{heads - attention}"


@given(pattern=st.text("AR", min_size=1, max_size=12), heads=st.sampled_from([4, 8]))
def test_a_pattern_cycles_and_its_ratio_is_reduced(pattern: str, heads: int) -> None:
    layout = Pattern(pattern=pattern)
    layers = layout.stack(12, heads, KNOWN)
    letters = "".join(layer.letter for layer in layers)
    assert letters == (pattern * 12)[:12]
    attention, other = letters.count("A"), letters.count("R")
    left, right = map(int, layout.ar_ratio(layers, heads).split(":"))
    assert left * other == right * attention
    assert gcd(left, right) == 1


@pytest.mark.parametrize(
    ("overrides", "architecture", "ratio", "pattern"),
    [
        (["layout=type_a", "layout.attention=10"], "Type A 10:2", "10:2", "AAAAAAAAAARR"),
        (["layout=type_b", "layout.attention=10"], "Type B 10:2", "10:2", "RRAAAAAAAAAA"),
        (["layout=type_a", "layout.attention=12"], "Transformer", "1:0", "AAAAAAAAAAAA"),
        (["layout=type_a", "layout.attention=0"], "RetNet", "0:1", "RRRRRRRRRRRR"),
        (["layout=type_c", "layout.attention=3"], "Type C 3:5", "3:5", "HHHHHHHHHHHH"),
        (["layout=pattern", "layout.pattern=RRRA"], "Pattern 1:3", "1:3", "RRRARRRARRRA"),
        (["layout=pattern", "layout.pattern=AAAAAAAAAARR"], "Pattern 5:1", "5:1", "AAAAAAAAAARR"),
        (["layout=pattern", "layout.pattern=N"], "FFN only", "0:0", "NNNNNNNNNNNN"),
    ],
)
def test_names_of_the_report(overrides: list[str], architecture: str, ratio: str, pattern: str) -> None:
    spec = load_spec(overrides)
    assert spec.layout.architecture(spec.layers, spec.scale.heads) == architecture
    assert spec.layout.ar_ratio(spec.layers, spec.scale.heads) == ratio
    assert spec.pattern == pattern


def test_a_layout_names_the_mixer_that_stands_beside_attention() -> None:
    beside_nothing = load_spec(["layout=type_b", "layout.attention=1", "layout.mixer=none"])
    assert beside_nothing.pattern == "N" * 11 + "A"
    assert beside_nothing.layout.ar_ratio(beside_nothing.layers, 8) == "1:0"
    all_attention = load_spec(["layout.attention=6", "layout.mixer=attention"])
    assert all_attention.layout.ar_ratio(all_attention.layers, 8) == "1:0"
    with pytest.raises(SpecError, match="unknown layer 'retnet'; known: attention, hybrid, msr, none"):
        load_spec(["layout.mixer=retnet"])


@given(depth=DEPTH, data=st.data(), placement=st.sampled_from(["interleaved", "spread", "random"]))
def test_placed_holds_the_ratio_wherever_attention_sits(depth: int, data: st.DataObject, placement) -> None:
    attention = data.draw(st.integers(0, depth))
    layers = Placed(attention=attention, placement=placement).stack(depth, 8, KNOWN)
    assert sorted(layer.letter for layer in layers) == ["A"] * attention + ["R"] * (depth - attention)


@pytest.mark.parametrize(
    ("placement", "draw", "pattern"),
    [
        ("interleaved", 0, "ARARARRRRRRR"),
        ("spread", 0, "RRARRRARRRAR"),
        ("random", 0, "RRRARRRRAARR"),
        ("random", 1, "RARRRARARRRR"),
    ],
)
def test_where_placed_puts_three_of_twelve(placement, draw: int, pattern: str) -> None:
    layout = Placed(attention=3, placement=placement, draw=draw)
    layers = layout.stack(12, 8, KNOWN)
    assert "".join(layer.letter for layer in layers) == pattern
    assert layout.columns() == {"placement": placement}
    assert layout.architecture(layers, 8).endswith("3:9")
