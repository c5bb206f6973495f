"""Retention's options, its numerics, and how it starts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retsweep.layers.initialise import initialise
from retsweep.layers.msr import CHUNKWISE_FROM, MsrSpec
from retsweep.spec import SpecError, load_spec
from retsweep.spec.compose import choices
from retsweep.spec.forms import Chunkwise, Form, Parallel, Recurrent
from retsweep.spec.layer import Shape
from tests.layers.checks import (
    SHAPE,
    built,
    by_token,
    check_causal,
    check_forms,
    check_operations,
    check_parameters,
    check_state,
    forms,
    inputs,
    layer,
)

OPTIONS = {
    "none": {"position": "none"},
    "xpos": {"position": "xpos"},
    "wide values": {"value_expansion": 2},
    "log spaced": {"decay": "log_spaced"},
    "normalised": {"normalise_decay": True},
    "no affine": {"norm_affine": False, "norm_eps": 1e-3},
    "chunked": {"form": "chunkwise", "chunk": 3},
    "all": {"position": "xpos", "value_expansion": 2, "decay": "log_spaced", "normalise_decay": True},
}


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def option(request: pytest.FixtureRequest) -> MsrSpec:
    return MsrSpec(letter="R", **request.param)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_option_has_equal_forms(option: MsrSpec, dtype: torch.dtype) -> None:
    check_forms(built(option, dtype=dtype), inputs(dtype=dtype))


def test_every_option_is_causal_and_counted(option: MsrSpec) -> None:
    for name in ("forward", "chunkwise"):
        check_causal(built(option), forms()[name])
    check_parameters(option)
    check_operations(option)
    check_state(option)


@settings(max_examples=25, deadline=None)
@given(
    time=st.integers(1, 24),
    chunk=st.integers(1, 30),
    heads=st.integers(1, 4),
    pairs=st.integers(1, 3),
    position=st.sampled_from(["none", "rotary", "xpos"]),
    normalise=st.booleans(),
)
def test_forms_agree_at_any_length_and_chunk(
    time: int, chunk: int, heads: int, pairs: int, position: str, normalise: bool
) -> None:
    spec = MsrSpec(letter="R", position=position, normalise_decay=normalise)
    mixer = built(spec, Shape(2 * pairs * heads, heads), torch.float64)
    x = inputs(time, torch.float64, 2 * pairs * heads)
    with torch.no_grad():
        want = mixer.naive(x)
        for form in (mixer.parallel(x), mixer.chunkwise(x, chunk)[0], by_token(mixer, x)):
            torch.testing.assert_close(form, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("position", ["rotary", "xpos"])
def test_65536_tokens_in_chunks_stay_finite_and_right(position: str) -> None:
    """In float32; the last outputs against a float64 run over the last stretch, which is all that
    the slowest head (gamma = 31/32 here) still remembers."""
    spec, shape = MsrSpec(letter="R", position=position), Shape(4, 1)
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(1, 65_536, 4, generator=stream)
    with torch.no_grad():
        y, state = built(spec, shape).chunkwise(x, 64)
        tail = built(spec, shape, torch.float64).chunkwise(x[:, -4096:].double(), 64)[0]
    assert y.isfinite().all()
    assert state.memory.isfinite().all()
    assert state.position == 65_536
    torch.testing.assert_close(y[:, -64:].double(), tail[:, -64:], atol=1e-3, rtol=0)


def test_long_decay_matrices_are_finite() -> None:
    """The published code gives NaN from 4,096 tokens on."""
    mixer = built(MsrSpec(letter="R", decay="log_spaced", position="xpos"), Shape(4, 2))
    with torch.no_grad():
        assert mixer.parallel(torch.randn(1, 4_200, 4)).isfinite().all()


def test_the_state_is_float32_in_bfloat16_and_float64_in_float64() -> None:
    for dtype, held in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        mixer = built(layer("msr"), dtype=dtype)
        for _, state in (
            mixer.chunkwise(inputs(dtype=dtype), 4),
            mixer.recurrent(inputs(dtype=dtype)[:, 0], mixer.initial_state(2)),
        ):
            assert state.memory.dtype == held


@pytest.mark.parametrize("position", ["none", "rotary", "xpos"])
def test_output_does_not_depend_on_where_the_sequence_starts(position: str) -> None:
    """A state whose memory is empty but whose position is late gives the same outputs."""
    mixer, x = (
        built(layer("msr", f"layer.msr.position={position}"), dtype=torch.float64),
        inputs(dtype=torch.float64),
    )
    empty = mixer.initial_state(2)
    torch.testing.assert_close(
        mixer.chunkwise(x, 4)[0],
        mixer.chunkwise(x, 4, empty._replace(position=1000))[0],
        rtol=1e-9,
        atol=1e-9,
    )


def test_heads_are_normalised_one_by_one() -> None:
    """Scaling one head's values changes nothing after the norm; mixing tokens would show."""
    mixer, x = (
        built(layer("msr", "layer.msr.norm_eps=1.0e-30"), dtype=torch.float64),
        inputs(dtype=torch.float64),
    )
    before, d = mixer(x), SHAPE.d_model
    with torch.no_grad():
        mixer.qkvg.weight[2 * d : 2 * d + SHAPE.head_dim] *= 7
    torch.testing.assert_close(mixer(x), before)


@pytest.mark.parametrize("expansion", [1, 2])
@pytest.mark.parametrize("decay", ["retnet", "log_spaced"])
def test_the_branch_is_alive_at_the_start(expansion: int, decay: str) -> None:
    """Unit input: output std between 0.3 and 1.5 (0.59 expected); the published start whispers."""
    x = torch.randn(2, 63, 256, generator=torch.Generator().manual_seed(1))
    stds = {}
    for start in ("fan_in", "inverse_hidden"):
        spec = MsrSpec(letter="R", value_expansion=expansion, decay=decay, start=start)
        mixer = spec.build(Shape(256, 8))
        initialise(mixer, 0, "torch")
        stds[start] = mixer(x).std().item()
    assert 0.3 < stds["fan_in"] < 1.5
    assert stds["inverse_hidden"] < 0.05


def test_the_published_branch_is_as_quiet_as_the_published_one() -> None:
    """At paper width, unit input: variance 6e-6 into the norm and output std 4e-4 (and 0.59 for a sound
    start), as was measured of the published code."""
    spec = load_spec(["protocol=published", "scale=paper", "layout.attention=0"])
    mixer = spec.layers[0].build(spec.scale.shape)
    initialise(mixer, 0, "torch")
    seen = []
    mixer.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].var().item()))
    x = torch.randn(2, 127, 768, generator=torch.Generator().manual_seed(1))
    assert mixer(x).std().item() == pytest.approx(4e-4, rel=0.3)
    assert seen[0] == pytest.approx(6e-6, rel=0.3)


def test_published_start_draws_all_five_projections_over_hidden() -> None:
    mixer = layer("msr", "layer.msr.start=inverse_hidden").build(Shape(128, 4))
    initialise(mixer, 3, "torch")
    for weight in (*mixer.qkvg.weight.chunk(4), mixer.out.weight):
        assert weight.std().item() == pytest.approx(1 / 128, rel=0.05)


def test_decoding_and_chunks_cost_what_the_paper_counts() -> None:
    """5 d^2 + 2 d^2/h a token; chunks of B add 2 B d; the shorter last chunk is not padded."""
    d, h, chunk = 768, 8, 64
    spec, shape = layer("msr"), Shape(d, h)
    token = 5 * d * d + 2 * d * d // h
    assert sum(o.macs for o in spec.operations(shape, Recurrent(9))) == token
    for time in (128, 150, 10):
        pairs = time // chunk * chunk**2 + (time % chunk) ** 2
        assert (
            sum(o.macs for o in spec.operations(shape, Chunkwise(time, chunk)))
            == time * token + 2 * pairs * d
        )


@pytest.mark.parametrize(
    ("form", "tokens", "wanted"),
    [
        ("by_length", CHUNKWISE_FROM - 1, Parallel(CHUNKWISE_FROM - 1)),
        ("by_length", CHUNKWISE_FROM, Chunkwise(CHUNKWISE_FROM, 64)),
        ("parallel", CHUNKWISE_FROM, Parallel(CHUNKWISE_FROM)),
        ("chunkwise", 7, Chunkwise(7, 64)),
    ],
)
def test_forward_runs_the_form_that_the_length_resolves_to(form: str, tokens: int, wanted: Form) -> None:
    spec = layer("msr", f"layer.msr.form={form}")
    mixer, ran = built(spec), []
    for name in ("parallel", "chunkwise"):
        own = getattr(mixer, name)
        setattr(mixer, name, lambda *given, _name=name, _own=own: (ran.append(_name), _own(*given))[1])
    with torch.no_grad():
        mixer(inputs(tokens))
    resolved = spec.resolved(tokens)
    assert spec.training_form(tokens) == resolved.training_form(tokens) == wanted
    assert [resolved.columns()["form"]] == ran == [type(wanted).__name__.lower()]


@pytest.mark.parametrize("scale", choices("scale"))
def test_63_and_127_tokens_are_parallel_at_every_scale(scale: str) -> None:
    """As every study until now trained them."""
    for context in (63, 127):
        spec = load_spec(
            [f"scale={scale}", f"scale.context={context}", "layout=pattern", "layout.pattern=RH"]
        )
        assert {layer.training_form(context) for layer in spec.layers} == {Parallel(context)}


def test_errors_name_what_is_accepted() -> None:
    with pytest.raises(SpecError, match="accepted: none, rotary, xpos"):
        MsrSpec(letter="R", position="xpos_both_up").check(SHAPE)
    with pytest.raises(SpecError, match="accepted: an even head dimension"):
        MsrSpec(letter="R").check(Shape(9, 3))
    MsrSpec(letter="R", position="none").check(Shape(9, 3))


def test_retention_by_hand() -> None:
    """Two tokens, one head of two channels, identity projections: the equation on paper."""
    spec = MsrSpec(letter="R", position="none", norm_affine=False)
    mixer = spec.build(Shape(2, 1)).double()
    with torch.no_grad():
        mixer.qkvg.weight.copy_(torch.eye(2).repeat(4, 1))
    q, k, v, _ = mixer._project(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]], dtype=torch.float64), 0)
    o = mixer._retain(q, k, v)[0, 0]
    gamma, scale = 1 - 2**-5, math.sqrt(2)
    second = [(10 * 3 + gamma * 1 * 1) / scale, (10 * -1 + gamma * 1 * 2) / scale]
    torch.testing.assert_close(o, torch.tensor([[5 / scale, 10 / scale], second], dtype=torch.float64))
