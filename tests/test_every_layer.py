"""Every conf/layer/*.yaml, as it stands: a new one is tested unasked."""

from __future__ import annotations

import pytest
import torch

from retsweep.spec.compose import choices
from retsweep.spec.layer import LayerSpec
from tests.layers.checks import (
    CHUNK,
    SHAPE,
    TIME,
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
    tensors,
)


@pytest.fixture(scope="module", params=choices("layer"))
def spec(request: pytest.FixtureRequest) -> LayerSpec:
    return layer(request.param)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_keeps_shape_and_dtype_in_every_form(spec: LayerSpec, dtype: torch.dtype) -> None:
    mixer, x = built(spec, dtype=dtype), inputs(dtype=dtype)
    want = built(spec, dtype=torch.float64).naive(inputs(dtype=torch.float64))
    for form in forms().values():
        y = form(mixer, x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), want, atol=0.1 if dtype == torch.bfloat16 else 1e-4, rtol=0)


def test_runs_under_bfloat16_autocast(spec: LayerSpec) -> None:
    mixer, x = built(spec), inputs()
    want = mixer.naive(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for form in forms().values():
            torch.testing.assert_close(form(mixer, x).float(), want, atol=0.1, rtol=0)


@pytest.mark.parametrize("form", forms())
def test_is_causal_to_the_bit(spec: LayerSpec, form: str) -> None:
    check_causal(built(spec), forms()[form])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_form_equals_the_naive_one(spec: LayerSpec, dtype: torch.dtype) -> None:
    check_forms(built(spec, dtype=dtype), inputs(dtype=dtype))


def test_a_state_is_not_changed_by_its_use(spec: LayerSpec) -> None:
    """The same state serves twice, as in a beam search."""
    mixer, x = built(spec), inputs()
    _, state = mixer.chunkwise(x[:, :6], CHUNK)
    assert torch.equal(by_token(mixer, x[:, 6:], state), by_token(mixer, x[:, 6:], state))


def test_gradients_are_finite_and_reach_every_parameter(spec: LayerSpec) -> None:
    mixer, x = built(spec), inputs(64).requires_grad_()
    (mixer(x) * torch.linspace(0, 1, SHAPE.d_model)).sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_census_equals_the_built_parameters(spec: LayerSpec) -> None:
    check_parameters(spec)


def test_census_equals_the_traced_operations(spec: LayerSpec) -> None:
    check_operations(spec)


def test_census_equals_the_state_kept(spec: LayerSpec) -> None:
    check_state(spec)


@pytest.mark.parametrize("room", [0, 9])
def test_a_stand_in_is_as_large_as_the_census_says(spec: LayerSpec, room: int) -> None:
    """And finite, and what ``recurrent`` goes on from; with room it holds that of all tokens to come."""
    mixer, x = built(spec), inputs()
    state = mixer.stand_in_state(2, context=7, room=room)
    assert sum(t.numel() for t in tensors(state)) == 2 * sum(spec.state_elements(SHAPE, room or 7).values())
    assert all(t.isfinite().all() for t in tensors(state))
    for n in range(2):
        y, state = mixer.recurrent(x[:, n], state)
        assert y.isfinite().all()


def test_a_state_with_room_gives_what_one_without_it_gives(spec: LayerSpec) -> None:
    mixer, x = built(spec), inputs()
    with torch.no_grad():
        roomy = by_token(mixer, x, mixer.initial_state(2, room=TIME))
        torch.testing.assert_close(roomy, by_token(mixer, x))


def test_constants_survive_evaluation_before_training(spec: LayerSpec) -> None:
    """Tables first made under inference_mode must still serve a backward pass."""
    mixer, x = built(spec), inputs(TIME)
    with torch.inference_mode():
        mixer(x)
    mixer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
