"""Perplexity and bits per byte: exp(total negative log-likelihood / total targets).

Products are computed in fp32, whatever a model was trained in: its weights are float32, and rounding
in the reading would be a difference between runs that is none of their models.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retsweep.layers.precision import products

#: Of the logits of one batch in float32; about three such tensors are alive at once.
LOGITS_BYTES = 256 << 20
#: Tokens that a GPU is given at once, so that it has them before it needs them.
TOKENS_AHEAD = 1 << 22


@dataclass(frozen=True)
class Likelihood:
    """``nats`` is the negative log-likelihood of ``targets`` tokens, summed."""

    nats: float
    targets: int

    @property
    def perplexity(self) -> float:
        """exp(nats / targets); inf where that overflows, nan where ``nats`` is nan."""
        return safe_exp(self.nats / self.targets)

    def bits_per_byte(self, text_bytes: int) -> float:
        """``text_bytes`` are the UTF-8 bytes that the targets stand for."""
        return self.nats / math.log(2) / text_bytes


def safe_exp(value: float) -> float:
    """exp(value), inf where it is too large for a float."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def affordable_batch(batch: int, time: int, vocabulary: int) -> int:
    """``batch`` windows of ``time`` targets, or as many as LOGITS_BYTES hold (one at least): how many
    are read at once changes no likelihood but in its rounding, and hardly the time that it takes."""
    return max(1, min(batch, LOGITS_BYTES // (4 * time * vocabulary)))


def negative_log_likelihood(
    model: nn.Module,
    windows: Iterable[tuple[NDArray[Any], NDArray[Any]]],
    batch: int = 64,
    device: str | torch.device = "cpu",
) -> Likelihood:
    """Of all targets in ``windows``, pairs of (inputs, targets), both (count, time).

    ``batch`` windows are read at once, in eval mode; the model's mode comes back afterwards.
    Windows of a pair are of one length, so nothing is padded. Sums are kept in float64.
    Raises ValueError if there is no target.
    """
    place = torch.device(device)
    nats = torch.zeros((), dtype=torch.float64, device=place)
    targets = 0
    with _evaluating(model):
        for pair in windows:
            for inputs, wanted in _batches(*pair, batch, place):
                losses = _losses(model, inputs, wanted, place)
                nats += losses.sum(dtype=torch.float64)
                targets += losses.numel()
    if not targets:
        raise ValueError("nothing to evaluate: no window holds a target")
    return Likelihood(float(nats), targets)


def mean_batch_perplexity(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: str | torch.device = "cpu",
) -> float:
    """exp(mean of the batches' mean losses), in eval mode: the published train perplexity, over
    the first training batches. ``batches`` are (inputs, targets), both (batch, time).

    Raises ValueError if there is no batch.
    """
    place = torch.device(device)
    with _evaluating(model):
        means = [
            _losses(model, inputs, targets, place).mean(dtype=torch.float64) for inputs, targets in batches
        ]
    if not means:
        raise ValueError("nothing to evaluate: no batch was given")
    return safe_exp(float(torch.stack(means).mean()))


def _batches(
    inputs: NDArray[Any], targets: NDArray[Any], batch: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """``batch`` windows after the other, (windows, time) int64 each, in the order given.

    A GPU gets many of them in one copy and cuts them there: it waits for the host once, not twice a
    batch. A CPU reads them where they are.
    """
    ahead = batch
    if device.type != "cpu":
        ahead = batch * max(1, TOKENS_AHEAD // (batch * inputs.shape[1]))
    for first in range(0, len(inputs), ahead):
        some = [_tensor(part[first : first + ahead], device) for part in (inputs, targets)]
        yield from zip(*(torch.split(part, batch) for part in some), strict=True)


def _losses(model: nn.Module, inputs: Tensor, targets: Tensor, device: torch.device) -> Tensor:
    """(batch * time,) float32 negative log-likelihood of each target."""
    logits = model(inputs.to(device, non_blocking=True))
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.to(device, non_blocking=True).flatten(), reduction="none"
    )


def _tensor(tokens: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64)).to(device)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, in fp32; each module's own mode is restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), products("fp32"):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
