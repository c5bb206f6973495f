"""Attention: causal multi-head softmax attention (Vaswani et al., 2017).

    o_n = sum_{m<=n} softmax_m(q_n k_m / sqrt(dk)) v_m          per head, then W_O [o_1 ... o_h]

    h    heads                    q, k, v   queries, keys, values: (batch, h, time, dk)
    dk   channels of a head       n, m      positions

Positions enter as rotary or xPos (``positions.py``). Two published defects are switches: a mask
that leaks (``mask: leaky``) and xPos that scales queries and keys alike (``xpos_both_up``).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from retsweep.layers.mixer import Heads, Mixer, RoomError, fill
from retsweep.layers.positions import Position, Positions, check_position, naive_scores
from retsweep.spec.base import SpecError, spec
from retsweep.spec.forms import Form, Recurrent
from retsweep.spec.layer import LayerSpec, Operation, Shape

#: What the published code wrote over the scores of future positions, in place of -1e9.
LEAK = 1e-9
#: Queries that meet a past at once, in a prefill behind another.
QUERIES = 512


@spec
class AttentionSpec(LayerSpec):
    """``mask: leaky``: future scores become 1e-9 before the softmax, so every position sees a
    uniform bag of later values. It has no incremental form, and its costs are the causal ones."""

    kind: ClassVar[str] = "attention"
    network: ClassVar[str] = "Transformer"
    position: Position = "rotary"
    mask: Literal["causal", "leaky"] = "causal"

    def heads_by_kind(self, heads: int) -> tuple[int, int]:
        return heads, 0

    @property
    def leaky(self) -> bool:
        return self.mask == "leaky"

    def causal(self) -> AttentionSpec:
        return dataclasses.replace(self, mask="causal")

    def columns(self) -> dict[str, Any]:
        return {"position": self.position, "mask": self.mask}

    def check(self, shape: Shape) -> None:
        check_position(self.kind, self.position, shape.head_dim)

    def parameters(self, shape: Shape) -> dict[str, int]:
        return self.parameters_of(Heads.of(shape))

    def operations(self, shape: Shape, form: Form) -> tuple[Operation, ...]:
        """Decoding reads ``context`` keys: 4 d^2 + 2 n d. Chunkwise is a prefill of all tokens in
        one parallel pass: as parallel, the full T^2 square, causality ignored."""
        return self.operations_of(Heads.of(shape), form)

    def state_elements(self, shape: Shape, context: int) -> dict[str, int]:
        return {"cache": 2 * context * shape.d_model, "state": 0}

    def build(self, shape: Shape) -> Attention:
        return self.build_of(Heads.of(shape))

    # The same for heads whose widths do not add up to d_model, as a direct hybrid has them.
    def parameters_of(self, heads: Heads) -> dict[str, int]:
        d, w = heads.d_model, heads.width
        closing = {"out.weight": w * d, "out.bias": d} if heads.output else {}
        return {"qkv.weight": 3 * w * d, "qkv.bias": 3 * w, **closing}

    def operations_of(self, heads: Heads, form: Form) -> tuple[Operation, ...]:
        d, w = heads.d_model, heads.width
        tokens, keys = (1, form.context) if isinstance(form, Recurrent) else (form.tokens, form.tokens)
        closing = Operation("output", "out", "projection", tokens * w * d, self.kind)
        return (
            Operation("queries_keys_values", "qkv", "projection", tokens * d * 3 * w, self.kind),
            Operation("scores", "", "interaction", tokens * keys * w, self.kind),
            Operation("values", "", "interaction", tokens * keys * w, self.kind),
        ) + ((closing,) if heads.output else ())

    def build_of(self, heads: Heads) -> Attention:
        return Attention(self, heads)


class AttentionState(NamedTuple):
    """Keys (turned, never faded) and values so far: (batch, heads, context, dk) each."""

    keys: Tensor
    values: Tensor


class AttentionCache(NamedTuple):
    """The same with room, written in place: the first ``length`` positions of (batch, heads, room, dk)
    hold tokens. xPos has faded the keys already, as counted from ``origin``: fading them all for each
    new token would cost more than attending to them."""

    keys: Tensor
    values: Tensor
    length: int
    origin: int

    @property
    def room(self) -> int:
        return self.keys.shape[2]


class Attention(Mixer):
    """Softmax attention: (batch, time, d_model) -> the same, or (batch, time, h dk) where
    ``heads.output`` is False and a direct hybrid closes it."""

    def __init__(self, spec: AttentionSpec, heads: Heads) -> None:
        super().__init__()
        self.heads, self.dk, self.leaky = heads.heads, heads.head_dim, spec.leaky
        self.positions = Positions(spec.position, heads.head_dim)
        self.qkv = nn.Linear(heads.d_model, 3 * heads.width)
        self.out = nn.Linear(heads.width, heads.d_model) if heads.output else nn.Identity()

    def parallel(self, x: Tensor) -> Tensor:
        q, k, v = self._project(x, start=0)
        return self._close(self._attend(q, k, v))

    def chunkwise(
        self, x: Tensor, chunk: int, state: AttentionState | AttentionCache | None = None
    ) -> tuple[Tensor, AttentionState | AttentionCache]:
        """A prefill: all of x in one pass over the cache and itself; ``chunk`` is of no account."""
        self._refuse_leak()
        if isinstance(state, AttentionCache):
            return self._extend(x, state)
        past = state.keys.shape[2] if state else 0
        q, k, v = self._project(x, start=past)
        if state:
            k = torch.cat([state.keys.to(k.dtype), k], dim=2)
            v = torch.cat([state.values.to(v.dtype), v], dim=2)
        return self._close(self._attend(q, k, v)), AttentionState(k, v)

    def recurrent(
        self, x: Tensor, state: AttentionState | AttentionCache
    ) -> tuple[Tensor, AttentionState | AttentionCache]:
        y, state = self.chunkwise(x[:, None], 1, state)
        return y[:, 0], state

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, room: int = 0
    ) -> AttentionState | AttentionCache:
        keys, values = self._empty(batch, room, dtype)
        return AttentionCache(keys, values, 0, 0) if room else AttentionState(keys, values)

    def stand_in_state(
        self, batch: int, context: int, room: int = 0, dtype: torch.dtype | None = None
    ) -> AttentionState | AttentionCache:
        if 0 < room < context:
            raise RoomError(room, 0, context)
        keys, values = map(fill, self._empty(batch, room or context, dtype))
        origin = self.positions.origin(0, context, 1)
        return AttentionCache(keys, values, context, origin) if room else AttentionState(keys, values)

    def weights(self, x: Tensor) -> Tensor:
        """What each position n takes of each m: (batch, h, n, m), rows that sum to 1."""
        q, k, _ = self._project(x, start=0)
        return self._attend(q, k, torch.eye(x.shape[1]).to(q).expand(*q.shape[:2], -1, -1))

    def naive(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, self.dk)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        outputs = []
        for n in range(x.shape[1]):
            scores = naive_scores(self.positions.kind, q[:, :, n], n, k) / math.sqrt(self.dk)
            future = torch.arange(x.shape[1]) > n
            scores = scores.masked_fill(future, LEAK if self.leaky else -math.inf)
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            outputs.append((weights[..., None] * v).sum(2))
        return self._close(torch.stack(outputs, dim=2))

    def _project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """x: (batch, time, d_model), first at position ``start`` -> q, k, v: (batch, h, time, dk)."""
        qkv = self.qkv(x).unflatten(-1, (3 * self.heads, self.dk))
        qk, v = qkv.split((2 * self.heads, self.heads), dim=2)
        q, k = self.positions.turn(qk, start).transpose(1, 2).chunk(2, dim=1)
        return q, k, v.transpose(1, 2)

    def _empty(self, batch: int, time: int, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
        """Keys and values of so many tokens, not written: (batch, h, time, dk) each."""
        self._refuse_leak()
        like, shape = self.qkv.weight, (batch, self.heads, time, self.dk)
        dtype = dtype or like.dtype
        return like.new_empty(shape, dtype=dtype), like.new_empty(shape, dtype=dtype)

    def _extend(self, x: Tensor, cache: AttentionCache) -> tuple[Tensor, AttentionCache]:
        """x: (batch, t, d_model) behind what ``cache`` holds -> the same, and the cache with it."""
        keys, values, start, before = cache
        time = x.shape[1]
        end = start + time
        if end > cache.room:
            raise RoomError(cache.room, start, time)
        q, k, v = self._project(x, start)
        origin = self.positions.origin(before, start, time)
        self.positions.move_(keys[:, :, :start], before, origin)
        q, k = self.positions.fade_from(q, k, start, origin)
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        o = self._read(q.to(keys.dtype), keys[:, :, :end], values[:, :, :end])
        return self._close(o.to(v.dtype)), AttentionCache(keys, values, end, origin)

    def _read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``_attend`` of what is faded: behind a past, so many queries at a time that their mask, which
        is as wide as the past, stays small."""
        t, n = q.shape[2], k.shape[2]
        if t in (1, n):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        parts = []
        for low in range(0, t, QUERIES):
            part = q[:, :, low : low + QUERIES]
            seen = n - t + low + part.shape[2]
            mask = ~_future(part.shape[2], seen, q)
            parts.append(
                functional.scaled_dot_product_attention(part, k[:, :, :seen], v[:, :, :seen], attn_mask=mask)
            )
        return torch.cat(parts, dim=2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q: (batch, h, t, dk), the last t of the n positions of k and v: (batch, h, n, dk)."""
        q, k = self.positions.fade(q, k)
        t, n = q.shape[2], k.shape[2]
        if self.leaky:
            scores = (q @ k.mT / math.sqrt(self.dk)).masked_fill(_future(t, n, q), LEAK)
            return scores.softmax(-1).to(v.dtype) @ v
        if t == n or t == 1:  # the kernel's own mask, or none
            return functional.scaled_dot_product_attention(q, k, v, is_causal=bool(t > 1))
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=~_future(t, n, q))

    def _close(self, o: Tensor) -> Tensor:
        """(batch, h, time, dk) -> (batch, time, d_model), or the heads side by side."""
        y: Tensor = self.out(o.transpose(1, 2).flatten(2))
        return y

    def _refuse_leak(self) -> None:
        if self.leaky:
            raise SpecError(
                "layer.attention.mask=leaky reads later tokens and has no recurrent or chunkwise form; "
                "accepted there: causal"
            )


def _future(t: int, n: int, like: Tensor) -> Tensor:
    """(t, n), True where key m lies after query i, the queries being the last t of n positions."""
    return torch.ones(t, n, dtype=torch.bool, device=like.device).triu(n - t + 1)
