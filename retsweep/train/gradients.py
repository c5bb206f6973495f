"""One step's loss and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all positions, in nats; logits (batch, time, vocabulary) of half a width are widened."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def accumulate_gradients(
    model: nn.Module,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    forward: AbstractContextManager[object],
) -> Tensor:
    """Adds to every ``grad`` that of the mean loss over all targets; returns that loss, in nats.

    ``micro_batches`` are pairs (inputs, targets), each (batch, time), on the model's device; each
    counts by its targets, so that the result is that of one large batch but for rounding.
    ``forward`` is the context in which forward passes run.
    """
    targets_in_all = sum(targets.numel() for _, targets in micro_batches)
    total: Tensor | None = None
    for inputs, targets in micro_batches:
        with forward:
            logits = model(inputs)
        loss = cross_entropy(logits, targets)
        if len(micro_batches) > 1:
            loss = loss * (targets.numel() / targets_in_all)
        loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None, "a step has at least one micro-batch"
    return total
