"""The loss in chunks: the same number and gradients as the loss of all logits, which are never there."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from retsweep.layers.precision import casting
from retsweep.model import build
from retsweep.spec import load_spec
from retsweep.train.gradients import accumulate_gradients
from retsweep.train.loss import chunked_cross_entropy, cross_entropy

D, VOCABULARY, BATCH, TIME = 16, 101, 3, 7
CPU = torch.device("cpu")


def case(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[Tensor, nn.Linear, Tensor]:
    stream = torch.Generator().manual_seed(3)
    hidden = torch.randn(BATCH, TIME, D, generator=stream, dtype=dtype).requires_grad_()
    head = nn.Linear(D, VOCABULARY, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=dtype))
    return hidden, head, torch.randint(VOCABULARY, (BATCH, TIME), generator=stream)


def gradients(loss: Tensor, hidden: Tensor, head: nn.Linear) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *head.parameters()]))


@pytest.mark.parametrize("bias", [True, False])
@given(tokens=st.integers(1, 2 * BATCH * TIME))
@settings(max_examples=12)
def test_chunks_of_any_size_give_loss_and_gradients_of_all_logits_at_once(bias: bool, tokens: int) -> None:
    hidden, head, targets = case(bias=bias)
    whole = cross_entropy(head(hidden), targets)
    chunked = chunked_cross_entropy(hidden, head, targets, tokens)
    torch.testing.assert_close(chunked, whole, rtol=1e-13, atol=0)
    for a, b in zip(gradients(chunked, hidden, head), gradients(whole, hidden, head), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("tokens", [4, 64])
def test_float32_differs_by_rounding_alone(tokens: int) -> None:
    hidden, head, targets = case(torch.float32)
    exact_hidden, exact_head = hidden.detach().double().requires_grad_(), case()[1]
    exact_head.load_state_dict({name: value.double() for name, value in head.state_dict().items()})
    exact = cross_entropy(exact_head(exact_hidden), targets)
    chunked = chunked_cross_entropy(hidden, head, targets, tokens)
    assert chunked.item() == pytest.approx(exact.item(), rel=1e-6)
    wanted = gradients(exact, exact_hidden, exact_head)
    for a, b in zip(gradients(chunked, hidden, head), wanted, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-7)


def test_an_outer_factor_reaches_every_gradient() -> None:
    hidden, head, targets = case()
    once = gradients(chunked_cross_entropy(hidden, head, targets, 5), hidden, head)
    thrice = gradients(3 * chunked_cross_entropy(hidden, head, targets, 5), hidden, head)
    for a, b in zip(thrice, once, strict=True):
        torch.testing.assert_close(a, 3 * b, rtol=1e-12, atol=0)


def test_bf16_products_keep_float32_sums() -> None:
    hidden, head, targets = case(torch.float32)
    exact = gradients(cross_entropy(head(hidden), targets), hidden, head)
    with casting("bf16", CPU):
        loss = chunked_cross_entropy(hidden, head, targets, 4)
        whole = head(hidden)
    assert loss.dtype == torch.float32
    rough = gradients(cross_entropy(whole, targets), hidden, head)
    for chunked, a, b in zip(gradients(loss, hidden, head), rough, exact, strict=True):
        assert chunked.dtype == torch.float32
        # as far from the exact gradient as autocast's own, which sees all tokens in one product
        assert (chunked - b).norm() < 1.5 * (a - b).norm() + 1e-3 * b.norm()


# ---- memory ----------------------------------------------------------------------------------
class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation gives while it is on."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given_back = func(*args, **(kwargs or {}))
        for value in given_back if isinstance(given_back, (tuple, list)) else [given_back]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return given_back


def held(run: Any) -> tuple[int, int]:
    """(largest tensor made, largest tensor kept for the backward pass) by ``run`` and its backward."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run().backward()
    return largest.elements, max(kept, default=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_tensor_is_as_large_as_all_logits(precision: Any) -> None:
    """d < tokens, so that the head itself, and its gradient, are smaller than the logits."""
    hidden, head, targets = case(torch.float32)
    everything, weights = BATCH * TIME * VOCABULARY, D * VOCABULARY

    def whole() -> Tensor:
        with casting(precision, CPU):
            logits = head(hidden)
        return cross_entropy(logits, targets)

    def chunked() -> Tensor:
        with casting(precision, CPU):
            return chunked_cross_entropy(hidden, head, targets, 4)

    assert held(whole) == (everything, everything)
    made, kept = held(chunked)
    assert made == weights < everything
    assert kept <= weights


# ---- the whole model -------------------------------------------------------------------------
LAYOUTS = {
    "Transformer": ("layout.attention=4",),
    "leaky": ("layout.attention=2", "layer.attention.mask=leaky"),
    "hybrid, final norm, no head bias": (
        "layout=type_c",
        "model.final_norm=true",
        "model.head_bias=false",
    ),
}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("overrides", LAYOUTS.values(), ids=LAYOUTS)
def test_a_step_in_micro_batches_has_the_gradients_that_it_has_without(
    overrides: tuple[str, ...], dropout: float
) -> None:
    spec = load_spec(["scale=tiny", "tokenizer=bytes", f"model.dropout={dropout}", *overrides])
    one, other = (build(spec, dtype=torch.float64) for _ in range(2))
    stream = torch.Generator().manual_seed(0)
    batches = [
        (torch.randint(288, (size, 9), generator=stream), torch.randint(288, (size, 9), generator=stream))
        for size in (3, 2)
    ]
    losses = []
    for model, head_tokens in ((one, None), (other, 7)):
        torch.manual_seed(1)
        losses.append(accumulate_gradients(model, batches, nullcontext(), head_tokens).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    for a, b in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-13)


def test_forward_is_the_head_over_the_hidden_states() -> None:
    model = build(load_spec(["scale=tiny", "tokenizer=bytes"]))
    tokens = torch.arange(12).view(2, 6)
    assert torch.equal(model(tokens), model.head(model.hidden(tokens)))
