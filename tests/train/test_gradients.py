from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retsweep.layers.precision import casting
from retsweep.train.gradients import accumulate_gradients, cross_entropy, optimiser_step
from tests.train.tiny import VOCABULARY, TinyModel, batch_at, protocol, same_weights


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4))
@settings(max_examples=10, deadline=None)
def test_micro_batches_of_any_sizes_give_the_gradient_of_one_large_batch(sizes):
    parts = [batch_at(0, micro, size) for micro, size in enumerate(sizes)]
    whole = [tuple(torch.cat(side) for side in zip(*parts, strict=True))]
    one, other = TinyModel().double(), TinyModel().double()
    loss = accumulate_gradients(one, whole, nullcontext())
    assert accumulate_gradients(other, parts, nullcontext()).item() == pytest.approx(loss.item(), rel=1e-12)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-14)


def test_the_loss_is_the_mean_over_all_positions():
    logits = torch.randn(2, 3, VOCABULARY, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (2, 3))
    by_hand = -sum(logits[b, t].log_softmax(-1)[targets[b, t]] for b in range(2) for t in range(3)) / 6
    assert cross_entropy(logits, targets).item() == pytest.approx(by_hand.item())


def test_bf16_runs_the_forward_in_bf16_and_the_loss_and_gradients_in_fp32():
    model, seen = TinyModel(), []
    model.head.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    loss = accumulate_gradients(model, [batch_at(0)], casting("bf16", torch.device("cpu")))
    assert seen == [torch.bfloat16]
    assert loss.dtype == torch.float32
    exact = accumulate_gradients(TinyModel(), [batch_at(0)], casting("fp32", torch.device("cpu")))
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_a_step_clips_the_gradient_of_all_batches_and_leaves_none():
    model, hand = TinyModel(), TinyModel()
    batches = [batch_at(0, micro) for micro in range(2)]
    plain, by_hand = (torch.optim.SGD(one.parameters(), lr=0.5) for one in (model, hand))
    loss = optimiser_step(model, plain, batches, protocol(clip=1e-2), torch.device("cpu"))
    assert loss.item() == accumulate_gradients(hand, batches, nullcontext()).item()
    norm = torch.nn.utils.clip_grad_norm_(hand.parameters(), 1e-2)
    assert norm > 1e-2, "else nothing was clipped"
    by_hand.step()
    assert same_weights(model, hand)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_step_computes_in_the_precision_and_head_of_the_protocol():
    model, seen = TinyModel(), []
    model.blocks[0][0].register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    plain = torch.optim.SGD(model.parameters(), lr=0.0)
    optimiser_step(model, plain, [batch_at(0)], protocol(precision="bf16"), torch.device("cpu"))
    assert seen == [torch.bfloat16]
    with pytest.raises(AttributeError, match="hidden"):  # this model can only give all logits at once
        optimiser_step(model, plain, [batch_at(0)], protocol(head_tokens=3), torch.device("cpu"))
