"""One step: its loss, its gradients, and what the optimiser makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from retsweep.layers.precision import casting
from retsweep.spec.protocol import Protocol as TrainingProtocol
from retsweep.train.distributed import ALONE, Group
from retsweep.train.loss import chunked_cross_entropy, cross_entropy


class WithHead(Protocol):
    """What ``head_tokens`` needs of a model: its logits are ``head(hidden(tokens))``."""

    head: nn.Linear

    def hidden(self, tokens: Tensor) -> Tensor: ...


def optimiser_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    protocol: TrainingProtocol,
    device: torch.device,
    group: Group = ALONE,
) -> Tensor:
    """One step of ``optimiser``, at its learning rate, over ``micro_batches`` as of
    :func:`accumulate_gradients`, whose loss it returns; gradients are gone afterwards.

    ``protocol`` gives precision, clipping and ``head_tokens``.
    """
    forward = casting(protocol.precision, device)
    loss = accumulate_gradients(model, micro_batches, forward, protocol.head_tokens, group)
    if protocol.clip is not None:
        parameters = [one for group in optimiser.param_groups for one in group["params"]]
        nn.utils.clip_grad_norm_(parameters, protocol.clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss


def accumulate_gradients(
    model: nn.Module,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    forward: AbstractContextManager[object],
    head_tokens: int | None = None,
    group: Group = ALONE,
) -> Tensor:
    """Adds to every ``grad`` that of the mean loss over all targets; returns that loss, in nats. In a
    ``group`` the gradients are of all processes' targets, the loss of this one's.

    ``micro_batches`` are pairs (inputs, targets), each (batch, time), on the model's device; each
    counts by its targets, so that the result is that of one large batch but for rounding.
    ``forward`` is the context in which forward passes run. ``head_tokens``: tokens whose logits are
    held at once, None for all of a micro-batch; else the model is a :class:`WithHead`.
    """
    targets_in_all = sum(targets.numel() for _, targets in micro_batches)
    total: Tensor | None = None
    for index, (inputs, targets) in enumerate(micro_batches):
        with group.syncing(index + 1 == len(micro_batches)):
            loss = group.loss(loss_of, model, inputs, targets, forward, head_tokens)
            if len(micro_batches) > 1:
                loss = loss * (targets.numel() / targets_in_all)
            loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None, "a step has at least one micro-batch"
    return total


def loss_of(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    forward: AbstractContextManager[object],
    head_tokens: int | None,
) -> Tensor:
    """The mean loss of one micro-batch, in nats; arguments as of :func:`accumulate_gradients`."""
    if head_tokens is None:
        with forward:
            logits = model(inputs)
        return cross_entropy(logits, targets)
    whole = cast(WithHead, model)
    with forward:
        return chunked_cross_entropy(whole.hidden(inputs), whole.head, targets, head_tokens)
