"""Decay schedules of retention, as logarithms: gamma near 1 would lose digits."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Decay = Literal["retnet", "log_spaced"]

#: 1 - gamma at the first and last head of the published code's schedule.
FASTEST, SLOWEST = 1 / 32, 1 / 512


def log_decays(schedule: Decay, heads: int) -> tuple[float, ...]:
    """log gamma of each head, the fastest decay first.

    ``retnet``: gamma_h = 1 - 2^(-5-h) (Sun et al., 2023, section 2.2). ``log_spaced``:
    gamma_h = 1 - exp(linspace(log 1/32, log 1/512, heads)), as in the RetFormers notebook.
    """
    if schedule == "retnet":
        return tuple(math.log1p(-(2.0 ** (-5 - h))) for h in range(heads))
    steps = [h / (heads - 1) for h in range(heads)] if heads > 1 else [0.0]
    low, high = math.log(FASTEST), math.log(SLOWEST)
    return tuple(math.log1p(-math.exp(low + step * (high - low))) for step in steps)


def decay_matrix(log_gamma: Tensor, length: int) -> Tensor:
    """D: (heads, length, length), D[i, j] = gamma^(i-j) for i >= j, else 0.

    The exponent is formed before exp and clipped at 0, so nothing overflows at any length.
    """
    n = torch.arange(length, dtype=torch.float64, device="cpu")
    distance = n[:, None] - n
    powers = torch.exp(distance.clamp(min=0) * log_gamma[:, None, None])
    return powers * (distance >= 0)


def row_sums(log_gamma: Tensor, length: int) -> Tensor:
    """sum over m <= i of gamma^(i-m) = (1 - gamma^(i+1)) / (1 - gamma): (length, heads)."""
    n = torch.arange(1, length + 1, dtype=torch.float64, device="cpu")
    return torch.expm1(n[:, None] * log_gamma) / torch.expm1(log_gamma)


def row_sum(log_gamma: Tensor, n: int) -> Tensor:
    """``row_sums`` of the token at position ``n`` alone: (heads,)."""
    return torch.expm1((n + 1) * log_gamma) / torch.expm1(log_gamma)
