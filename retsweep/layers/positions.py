"""Rotary and xPos positions, one for all mixers.

RoFormer (Su et al., 2021): channel pair k of a query or key at position n, read as a complex
number, is turned by e^(i n theta_k), theta_k = 10000^(-2k/d_k); a score then depends on the
distance alone. xPos (Sun et al., 2022) lets the pair's share of the score between query i and key
j fade as zeta_k^(i-j), zeta_k = ((2k/d_k + 0.4) / 1.4)^(1/512): a second decay, also a function
of the distance alone.

    theta   angle a position, per pair         zeta   decay a position, per pair
    dk      channels of a head's key           n, i   positions of queries; m, j of keys

Pairs are neighbouring channels (2k, 2k+1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from retsweep.layers.constants import Constants, Rows
from retsweep.layers.mixer import wide
from retsweep.spec.base import SpecError

Position = Literal["none", "rotary", "xpos", "xpos_both_up"]

BASE = 10_000.0
XPOS_SMOOTHING = 0.4
XPOS_LENGTH = 512


def check_position(layer: str, position: Position, head_dim: int) -> None:
    """Raises SpecError if heads of ``head_dim`` channels cannot be read as pairs."""
    if position != "none" and head_dim % 2:
        raise SpecError(
            f"layer.{layer}.position={position} turns pairs of channels, but d_model / heads = {head_dim} "
            "is odd; accepted: an even head dimension, or position none"
        )


def angles(head_dim: int) -> Tensor:
    """theta: (dk/2,), float64."""
    pairs = torch.arange(head_dim // 2, dtype=torch.float64, device="cpu")
    return torch.exp(-2 * pairs / head_dim * torch.log(torch.tensor(BASE, dtype=torch.float64, device="cpu")))


def log_zetas(head_dim: int) -> Tensor:
    """log zeta by channel: (dk,), float64, the two channels of a pair alike."""
    pairs = torch.arange(head_dim // 2, dtype=torch.float64, device="cpu")
    zeta = (2 * pairs / head_dim + XPOS_SMOOTHING) / (1 + XPOS_SMOOTHING)
    return (torch.log(zeta) / XPOS_LENGTH).repeat_interleave(2)


class Positions:
    """Turns and scales queries and keys of ``head_dim`` channels."""

    def __init__(self, kind: Position, head_dim: int) -> None:
        self.kind = kind
        self._turns = Rows(
            lambda length: torch.polar(
                torch.ones(length, 1, head_dim // 2, dtype=torch.float64, device="cpu"),
                torch.arange(length, dtype=torch.float64, device="cpu")[:, None, None] * angles(head_dim),
            )
        )
        self._fades = Constants(lambda *span: _fade(torch.arange(*span, device="cpu"), head_dim))

    def turn(self, x: Tensor, start: int = 0) -> Tensor:
        """Rotary alone. x: (batch, time, heads, dk), its first time at position ``start``."""
        if self.kind == "none":
            return x
        turns = self._turns(start, x.shape[1], x)  # (time, 1, dk/2)
        pairs = torch.view_as_complex(x.to(wide(x.dtype)).view(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)

    def fade(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """xPos scales on top of ``turn``; the queries are the last of the keys' positions 0...n-1.

        q: (..., t, dk); k: (..., n, dk). The exponents are counted from the middle of the queries,
        so that neither factor overflows in float32 up to 70,000 queries in one pass (longer inputs
        go in chunks): zeta^(i-c) zeta^(c-j) = zeta^(i-j). Only the published
        defect scales both by their absolute position.
        """
        if self.kind not in ("xpos", "xpos_both_up"):
            return q, k
        t, n = q.shape[-2], k.shape[-2]
        past = n - t
        centre = past + t // 2
        if self.kind == "xpos_both_up":
            up, down = self._fades(past, n, like=q), self._fades(0, n, like=k)
        else:
            up = self._fades(past - centre, n - centre, like=q)
            down = self._fades(centre, centre - n, -1, like=k)
        return (q * up).to(q.dtype), (k * down).to(k.dtype)


def _fade(exponents: Tensor, head_dim: int) -> Tensor:
    """zeta^exponent: (length, dk)."""
    return torch.exp(exponents[:, None] * log_zetas(head_dim))


def naive_scores(kind: Position, q: Tensor, n: int, k: Tensor) -> Tensor:
    """Scores of the query at position ``n`` with the keys at 0, 1, ..., from the distances.

    q: (batch, heads, dk); k: (batch, heads, m, dk); result (batch, heads, m). For tests: with
    q = a + bi and k = c + di, Re(q conj(k) e^(i(n-m)theta)) written out in real numbers.
    """
    dk = q.shape[-1]
    if kind == "none":
        return (q[:, :, None] * k).sum(-1)
    m = torch.arange(k.shape[2], dtype=torch.float64)
    angle = (n - m)[:, None] * angles(dk)
    a, b = q[:, :, None, 0::2], q[:, :, None, 1::2]
    c, d = k[..., 0::2], k[..., 1::2]
    shares = (a * c + b * d) * angle.cos().to(q) - (b * c - a * d) * angle.sin().to(q)
    if kind != "rotary":
        exponent = n + m if kind == "xpos_both_up" else n - m
        shares = shares * torch.exp(exponent[:, None] * log_zetas(dk)[0::2]).to(q)
    return shares.sum(-1)
