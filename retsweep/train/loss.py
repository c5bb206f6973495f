"""The loss of training: mean cross-entropy over all positions, its logits held at once or in parts.

With a vocabulary of V the logits of a batch are its largest tensor by far, and three of their size
are alive at once: logits, log-probabilities, gradient. :func:`chunked_cross_entropy` multiplies
some tokens at a time by the head, and turns their logits, in the same memory, into log-probabilities
and then into the gradient p - [target], from which it adds up the gradients of hidden states and head:

    loss = -s sum_t log p_t[y_t]     p_t = softmax(x_t W^T + b)
    dx_t = s (p_t - e(y_t)) W        dW = s sum_t (p_t - e(y_t))^T x_t     db = s sum_t (p_t - e(y_t))

    x   hidden states: (tokens, d)     W, b   head: (V, d), (V,)     s   1 / targets of the whole step

No tensor of (tokens, V) is ever made, and no product is computed twice. The idea is that of Liger
and Cut Cross-Entropy (Hsu et al., 2024; Wijmans et al., 2024). Torch's own function of this kind is
younger than the oldest torch that retsweep runs on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all positions, in nats; logits (batch, time, vocabulary) of half a width are widened."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def chunked_cross_entropy(hidden: Tensor, head: nn.Linear, targets: Tensor, tokens: int) -> Tensor:
    """:func:`cross_entropy` of ``head(hidden)``, the logits of ``tokens`` tokens held at once.

    hidden: (batch, time, d); targets: (batch, time). Under autocast, called inside it: products run
    in its dtype, all else and the sum over chunks in float32. It can be differentiated once.
    """
    kind = hidden.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden.flatten(0, -2), head.weight, head.bias, targets.flatten(), tokens, narrow
        )
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradients are made in the forward pass, while the logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        tokens: int,
        narrow: torch.dtype | None,
    ) -> Tensor:
        factors = [y if narrow is None else y.to(narrow) for y in (x, weight)]
        share = 1 / targets.numel()
        wanted = any(ctx.needs_input_grad)
        loss = torch.zeros((), dtype=weight.dtype, device=x.device)
        sums = _Gradients(x, weight, bias) if wanted else None
        for first in range(0, len(targets), tokens):
            part, y = factors[0][first : first + tokens], targets[first : first + tokens, None]
            scores = _scores(part, factors[1], bias)
            torch.log_softmax(scores, -1, out=scores)
            loss -= scores.gather(1, y).sum() * share
            if sums is not None:
                scores.exp_().scatter_add_(1, y, scores.new_full((1, 1), -1.0).expand_as(y))
                sums.add(first, scores, part, factors[1], share)
        if sums is not None:
            ctx.gradients = sums.x, sums.weight, sums.bias
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """``outer``: d/d loss, almost always 1 or the share of a micro-batch."""
        gradients, ctx.gradients = ctx.gradients, None
        one = outer[0].device.type == "cpu" and outer[0].item() == 1  # a GPU would wait for the answer
        return (*(y if y is None or one else y.mul_(outer[0]) for y in gradients), None, None, None)


class _Gradients:
    """The gradients of hidden states and head, grown by one chunk after the other."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.x, self.weight = torch.empty_like(x), torch.empty_like(weight)
        self.bias = None if bias is None else torch.zeros_like(bias)

    def add(self, first: int, change: Tensor, x: Tensor, weight: Tensor, share: float) -> None:
        """``change``: p - [target] of a chunk, (n, V), float32; it is scaled where that costs least."""
        if self.bias is not None:
            self.bias.add_(change.sum(0), alpha=share)
        narrowed = change.to(x.dtype)
        rows = self.x[first : first + len(x)]
        rows.copy_(narrowed @ weight).mul_(share)
        if x.dtype == self.weight.dtype:
            self.weight.addmm_(narrowed.mT, x, beta=1 if first else 0, alpha=share)
        elif first:
            self.weight.add_(narrowed.mT @ x, alpha=share)
        else:
            self.weight.copy_(narrowed.mT @ x).mul_(share)


def _scores(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: (n, V), in float32 or wider."""
    scores = functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
