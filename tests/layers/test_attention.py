"""Attention's options and published defects."""

from __future__ import annotations

import pytest
import torch

from retsweep.layers.attention import AttentionSpec
from retsweep.layers.mixer import RoomError
from retsweep.spec import SpecError
from retsweep.spec.forms import Chunkwise, Recurrent
from retsweep.spec.layer import Shape
from tests.layers.checks import (
    SHAPE,
    built,
    check_causal,
    check_forms,
    check_operations,
    check_parameters,
    forms,
    inputs,
    layer,
)

POSITIONS = ("none", "rotary", "xpos", "xpos_both_up")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_position_has_equal_forms(position: str, dtype: torch.dtype) -> None:
    spec = AttentionSpec(letter="A", position=position)
    check_forms(built(spec, dtype=dtype), inputs(dtype=dtype))
    check_causal(built(spec), forms()["forward"])
    check_operations(spec)


@pytest.mark.parametrize(("position", "invariant"), zip(POSITIONS, (True, True, True, False), strict=True))
def test_a_score_depends_on_the_distance_alone(position: str, invariant: bool) -> None:
    """The same query and key 5 apart, at two places. xPos scaled up twice is the published defect."""
    attention = built(AttentionSpec(letter="A", position=position), dtype=torch.float64)
    x = torch.randn(1, 1, SHAPE.d_model, dtype=torch.float64).expand(1, 130, -1)
    q, k, _ = attention._project(x, start=0)
    q, k = attention.positions.fade(q, k)
    scores = q @ k.mT
    assert torch.allclose(scores[..., 5, 0], scores[..., 125, 120], rtol=1e-12) == invariant


def test_xpos_decodes_exactly_far_from_the_start() -> None:
    """Keys are cached unfaded, so a long context neither overflows nor loses digits."""
    attention = built(AttentionSpec(letter="A", position="xpos"), Shape(8, 2), torch.float32)
    x = inputs(300, d_model=8)
    wide = built(AttentionSpec(letter="A", position="xpos"), Shape(8, 2), torch.float64).parallel(x.double())
    _, state = attention.chunkwise(x[:, :-1], 64)
    y, _ = attention.recurrent(x[:, -1], state)
    torch.testing.assert_close(y.double(), wide[:, -1], atol=1e-5, rtol=1e-4)
    far = torch.ones(1, 2, 60_000, 4)
    q, k = attention.positions.fade(far[:, :, -1:], far)
    assert q.isfinite().all()
    assert k.isfinite().all()


def test_the_leak_equals_its_naive_form_and_sees_the_future() -> None:
    leaky = layer("attention", "layer.attention.mask=leaky")
    assert leaky.leaky
    assert not layer("attention").leaky
    mixer, x = built(leaky, dtype=torch.float64), inputs(dtype=torch.float64)
    check_forms(mixer, x, only=("forward", "parallel"))
    changed = x.clone()
    changed[:, -1] += 1
    assert ((mixer(x) - mixer(changed)).abs().amax((0, 2)) > 1e-6).all()
    check_parameters(leaky)
    check_operations(leaky, incremental=False)


def test_the_leak_gives_future_values_equal_weight() -> None:
    """The first of T positions with zero scores averages all values."""
    mixer, x = built(layer("attention", "layer.attention.mask=leaky")), inputs()
    with torch.no_grad():
        mixer.qkv.weight[: 2 * SHAPE.d_model] = 0
        mixer.qkv.bias[: 2 * SHAPE.d_model] = 0
        y = mixer(x)
    torch.testing.assert_close(y[:, 0], y.mean(1), atol=1e-5, rtol=1e-5)


def test_the_leak_has_no_incremental_form() -> None:
    mixer, x = built(layer("attention", "layer.attention.mask=leaky")), inputs()
    for call in (lambda: mixer.chunkwise(x, 4), lambda: mixer.initial_state(1)):
        with pytest.raises(SpecError, match=r"leaky .* accepted there: causal"):
            call()


@pytest.mark.parametrize("position", ["rotary", "xpos", "xpos_both_up"])
def test_pairs_need_an_even_head_dimension(position: str) -> None:
    with pytest.raises(SpecError, match=r"d_model / heads = 7 is odd; accepted: .*none"):
        AttentionSpec(letter="A", position=position).check(Shape(14, 2))
    AttentionSpec(letter="A", position="none").check(Shape(14, 2))


def test_decoding_costs_what_the_paper_counts() -> None:
    """4 d^2 + 2 n d a token; 4 d^2 + 2 T d a token of a prefill."""
    d, n = 768, 512
    spec, shape = layer("attention"), Shape(d, 8)
    assert sum(o.macs for o in spec.operations(shape, Recurrent(n))) == 4 * d * d + 2 * n * d
    assert sum(o.macs for o in spec.operations(shape, Chunkwise(n, 64))) == n * (4 * d * d + 2 * n * d)


def test_a_cache_without_a_decoder_has_its_room_and_no_more() -> None:
    mixer, x = built(layer("attention")), inputs(5)
    with torch.no_grad():
        _, cache = mixer.chunkwise(x[:, :4], 1, mixer.initial_state(2, room=5))
        _, full = mixer.recurrent(x[:, 4], cache)
        for call in (lambda: mixer.chunkwise(x, 1, cache), lambda: mixer.recurrent(x[:, 0], full)):
            with pytest.raises(RoomError, match="a state with room for 5 tokens holds"):
                call()
    with pytest.raises(RoomError):
        mixer.stand_in_state(1, context=6, room=5)
