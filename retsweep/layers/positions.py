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

import functools
from typing import Literal

import torch
from torch import Tensor

from retsweep.layers.constants import KEPT, Constants, Rows
from retsweep.layers.mixer import wide
from retsweep.spec.base import SpecError

Position = Literal["none", "rotary", "xpos", "xpos_both_up"]

BASE = 10_000.0
XPOS_SMOOTHING = 0.4
XPOS_LENGTH = 512
#: How far from a cache's origin its newest token may lie before the origin is moved: the scales of
#: xPos stay below e^41 in float32 and bfloat16, and moving, a pass over all keys, is rare.
REACH = 1 << 14


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
        self.kind, self.head_dim = kind, head_dim
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
        if x.shape[1] == 1:  # no table: it would grow with the position
            turns = _turn_at(start, self.head_dim, x.device, wide(x.dtype))
        else:
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

    # ---- faded keys that are kept --------------------------------------------------------------
    def origin(self, before: int, start: int, time: int) -> int:
        """From where the scales of a cache are counted, for it to take positions ``start`` to ``start +
        time - 1``: from ``before``, or where that is too far from them, from their middle."""
        near = max(abs(start - before), abs(start + time - before)) <= REACH
        return before if near or self.kind != "xpos" else start + time // 2

    def fade_from(self, q: Tensor, k: Tensor, start: int, origin: int) -> tuple[Tensor, Tensor]:
        """``fade`` of queries and keys at the same positions, so that the keys can be kept as they are.

        q, k: (..., t, dk), the first at position ``start``; exponents are counted from ``origin``, the
        same for every key that a query meets: zeta^(i-origin) zeta^(origin-j) = zeta^(i-j).
        """
        if self.kind not in ("xpos", "xpos_both_up"):
            return q, k
        low, t = start - origin, q.shape[-2]
        up = self._span(low, t, 1, like=q)
        down = up if self.kind == "xpos_both_up" else self._span(-low, t, -1, like=k)
        return (q * up).to(q.dtype), (k * down).to(k.dtype)

    def move_(self, k: Tensor, before: int, origin: int) -> None:
        """Counts keys that :meth:`fade_from` gave from ``origin`` instead of ``before``, in place."""
        if before != origin:
            k.mul_(self._span(origin - before, 1, 1, like=k))

    def _span(self, low: int, length: int, step: int, like: Tensor) -> Tensor:
        """zeta^low, zeta^(low + step), ...: (length, dk)."""
        if length == 1:
            return _fade_at(low, self.head_dim, like.device, wide(like.dtype))
        return self._fades(low, low + step * length, step, like=like)


@functools.lru_cache(maxsize=KEPT)
def _turn_at(position: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """e^(i position theta): (dk/2,), complex. Layers ask for the same one after another."""
    with torch.inference_mode(False), torch.no_grad():
        angle = position * angles(head_dim)
        return torch.polar(torch.ones_like(angle), angle).to(dtype.to_complex()).to(device)


@functools.lru_cache(maxsize=KEPT)
def _fade_at(exponent: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """zeta^exponent: (1, dk)."""
    with torch.inference_mode(False), torch.no_grad():
        return _fade(torch.tensor([exponent], device="cpu"), head_dim).to(dtype).to(device)


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
