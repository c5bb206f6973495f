"""MSR: multi-scale retention (Sun et al., "Retentive Network", 2023, section 2).

    S_n = gamma S_{n-1} + k_n^T v_n                    recurrent   (eq. 6)
    o_n = q_n S_n / sqrt(dk)
    o   = (Q K^T * D) V / sqrt(dk)                     parallel    (eq. 5), D[n,m] = gamma^(n-m), n >= m
    y   = W_O (swish(W_G x) * norm(o))                 multi-scale (eq. 8), norm per token and head

    h     heads                          S       state ("memory"): (batch, h, dk, dv), float32
    dk    key channels of a head         gamma   decay of a head, fixed
    dv    value channels, dk * value_expansion   theta, zeta   positions.py, fixed

q and k carry rotary positions, or xPos, whose zeta is a second decay per key channel: together
lambda = gamma zeta. Chunkwise (eq. 7), with S the state *before* a chunk of B tokens and b = 0...B-1
inside it: o_b = (Q K^T * D)_b V + lambda^(b+1) q_b S, and S' = lambda^B S + sum_b lambda^(B-1-b)
k_b^T v_b. Every exponent is nonnegative, so nothing overflows however long the sequence is.

The original's division by max(|row sum|, 1) depends on the data of a whole row and has no exact
recurrent form: it is left out. ``normalise_decay`` keeps the part that has a closed form, the
division of row n by sqrt(sum_{m<=n} gamma^(n-m)).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from retsweep.layers import kernels
from retsweep.layers.constants import Constants, Rows
from retsweep.layers.decays import Decay, decay_matrix, log_decays, row_sum, row_sums
from retsweep.layers.initialise import Draw, normal
from retsweep.layers.mixer import Heads, Mixer, fill, wide
from retsweep.layers.norm import HeadNorm
from retsweep.layers.positions import Position, Positions, check_position, log_zetas, naive_scores
from retsweep.spec.base import SpecError, spec
from retsweep.spec.forms import Chunkwise, Form, Parallel, Recurrent
from retsweep.spec.layer import LayerSpec, Normalisation, Operation, Shape

#: Tokens from which ``form: by_length`` trains in chunks. Chunks of B save products against the parallel
#: form from T = B + d/h on (72 tokens at d 64, 160 at d 768, B 64, 8 heads), but theirs are small products
#: and a loop over chunks. Forward and backward of one mixer, chunkwise by parallel time, in turns on one
#: core in fp32: 0.92, 0.63, 0.52, 0.50 at d 64 and 1.10, 1.03, 1.02, 1.09 at d 768 for T = 128, 192, 256,
#: 320, and 0.93 at d 768 and 512. So at 256 the narrow model gains half and the wide one is near parity
#: (memory is saved in both), while at 63 and 127, where finished studies trained in the parallel form,
#: there is little or nothing to gain. It is a number of tokens and nothing else: all layers of all
#: variants of a study take the same form.
CHUNKWISE_FROM = 256


@spec
class MsrSpec(LayerSpec):
    """``value_expansion``: width of values and gate per key width. ``start``: the projections are
    N(0, 1/fan_in), or the published N(0, 1)/d_model that leaves the branch nearly silent. ``form``
    and ``chunk``: how it trains; the function is the same. ``by_length`` is parallel below
    CHUNKWISE_FROM tokens and chunkwise from there on."""

    kind: ClassVar[str] = "msr"
    network: ClassVar[str] = "RetNet"
    position: Position = "rotary"
    decay: Decay = "retnet"
    normalise_decay: bool = False
    scale_scores: bool = True
    """Whether scores are divided by sqrt(dk). The published code does not; behind the norm it hardly
    matters, unless the branch starts so small that the norm's eps outweighs its variance."""
    value_expansion: PositiveInt = 1
    norm_affine: bool = True
    norm_eps: PositiveFloat = 1e-5
    start: Literal["fan_in", "inverse_hidden"] = "fan_in"
    form: Literal["by_length", "parallel", "chunkwise"] = "by_length"
    chunk: PositiveInt = 64
    kernel: Literal["torch", "fla"] = "torch"
    """What computes training steps: ours, or Triton's (``kernels.py``). All else, evaluation and decoding
    among it, is always ours."""

    def columns(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "start": self.start,
            "decay": self.decay,
            "normalise_decay": self.normalise_decay,
            "scale_scores": self.scale_scores,
            "value_expansion": self.value_expansion,
            "form": self.form,
            "kernel": self.kernel,
        }

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields without effect beside the others, and the form that was every run's before there was
        a choice by length: identity is asked of ``resolved`` layers."""
        return ("form", "chunk") if self.form == "parallel" else ()

    def check(self, shape: Shape) -> None:
        if self.position == "xpos_both_up":
            raise SpecError(
                "layer.msr.position=xpos_both_up is a defect of the published attention; "
                "accepted: none, rotary, xpos"
            )
        check_position(self.kind, self.position, shape.head_dim)
        if self.kernel == "fla":
            if self.position == "xpos":
                raise SpecError(
                    "layer.msr.kernel=fla has one decay a head, and layer.msr.position=xpos one a channel; "
                    "accepted: none, rotary"
                )
            kernels.check_chunk(self.chunk)

    def check_device(self, device: str, precision: str) -> None:
        if self.kernel == "fla":
            kernels.check_device(device, precision)

    def portable(self) -> MsrSpec:
        return dataclasses.replace(self, kernel="torch")

    def training_form(self, tokens: int) -> Form:
        by_length = "parallel" if tokens < CHUNKWISE_FROM else "chunkwise"
        form = by_length if self.form == "by_length" else self.form
        return Parallel(tokens) if form == "parallel" else Chunkwise(tokens, self.chunk)

    def resolved(self, tokens: int) -> MsrSpec:
        chunked = isinstance(self.training_form(tokens), Chunkwise)
        return dataclasses.replace(self, form="chunkwise" if chunked else "parallel")

    def log_decays(self, heads: int) -> tuple[float, ...]:
        return log_decays(self.decay, heads)

    def parameters(self, shape: Shape) -> dict[str, int]:
        return self.parameters_of(Heads.of(shape))

    def operations(self, shape: Shape, form: Form) -> tuple[Operation, ...]:
        """Per token, value_expansion 1: parallel 5 d^2 + 2 T d (full square, causality ignored),
        chunkwise 5 d^2 + 2 B d + 2 d^2/h (a shorter last chunk counted as it is), recurrent
        5 d^2 + 2 d^2/h. Decays, norms and gates are no matrix products."""
        return self.operations_of(Heads.of(shape), form)

    def normalisations(self, shape: Shape, tokens: int) -> tuple[Normalisation, ...]:
        return self.normalisations_of(Heads.of(shape), tokens)

    def state_elements(self, shape: Shape, context: int) -> dict[str, int]:
        return {"cache": 0, "state": shape.d_model * shape.head_dim * self.value_expansion}

    def build(self, shape: Shape) -> Retention:
        return self.build_of(Heads.of(shape), self.log_decays(shape.heads))

    # The same for heads whose widths do not add up to d_model, as a direct hybrid has them.
    def parameters_of(self, heads: Heads) -> dict[str, int]:
        d, w, e = heads.d_model, heads.width, self.value_expansion
        norm = {"norm.weight": e * w, "norm.bias": e * w} if self.norm_affine else {}
        closing = {"out.weight": e * w * d} if heads.output else {}
        return {"qkvg.weight": (2 + 2 * e) * w * d, **norm, **closing}

    def operations_of(self, heads: Heads, form: Form) -> tuple[Operation, ...]:
        d, w, e = heads.d_model, heads.width, self.value_expansion
        tokens = 1 if isinstance(form, Recurrent) else form.tokens
        closing = Operation("output", "out", "projection", tokens * e * w * d, self.kind)
        inside = tuple(
            Operation(name, "", "interaction", macs, self.kind)
            for name, macs in _interaction(form, w, e, heads.head_dim).items()
        )
        project = tokens * d * (2 + 2 * e) * w
        return (
            Operation("queries_keys_values_gate", "qkvg", "projection", project, self.kind),
            *inside,
            *((closing,) if heads.output else ()),
        )

    def normalisations_of(self, heads: Heads, tokens: int) -> tuple[Normalisation, ...]:
        """Over each head's values; weight and bias are applied after, over all heads at once."""
        return (Normalisation("norm", tokens * self.value_expansion * heads.width, weighted=False),)

    def build_of(self, heads: Heads, log_gammas: tuple[float, ...]) -> Retention:
        return Retention(self, heads, log_gammas)


def _interaction(form: Form, w: int, e: int, dk: int) -> dict[str, int]:
    """Multiply-accumulates between tokens, by name."""
    if isinstance(form, Recurrent):
        return {"state_write": dk * e * w, "state_read": dk * e * w}
    if isinstance(form, Parallel):
        return {"scores": form.tokens**2 * w, "values": form.tokens**2 * e * w}
    full, rest = divmod(form.tokens, form.chunk)
    pairs = full * form.chunk**2 + rest**2
    state = form.tokens * dk * e * w
    return {"scores": pairs * w, "values": pairs * e * w, "state_write": state, "state_read": state}


class RetentionState(NamedTuple):
    """``memory``: S, (batch, heads, dk, dv), float32 or float64. ``position``: tokens read. ``own``: one
    decode's own, whose memory ``recurrent`` writes in place."""

    memory: Tensor
    position: int
    own: bool = False


class Retention(Mixer):
    """Multi-scale retention: (batch, time, d_model) -> the same, or (batch, time, h dv) where
    ``heads.output`` is False and a direct hybrid closes it."""

    def __init__(self, spec: MsrSpec, heads: Heads, log_gammas: tuple[float, ...]) -> None:
        super().__init__()
        self.spec, self.heads, self.dk = spec, heads.heads, heads.head_dim
        self.dv = spec.value_expansion * heads.head_dim
        self.divisor = math.sqrt(self.dk) if spec.scale_scores else 1.0
        self.log_gammas = log_gammas
        width = self.heads * self.dv
        self.qkvg = nn.Linear(heads.d_model, 2 * heads.width + 2 * width, bias=False)
        self.norm = HeadNorm(self.heads, self.dv, spec.norm_eps, spec.norm_affine)
        self.out = nn.Linear(width, heads.d_model, bias=False) if heads.output else nn.Identity()
        self.positions = Positions(spec.position, heads.head_dim)
        self._decay = Constants(self._scaled_decays)
        self._powers = Constants(self._lambda_powers)
        self._logs = Constants(self._log_gamma)
        self._rows = Rows(lambda length: row_sums(self._log_gamma(), length).rsqrt())
        self._row = Constants(lambda n: row_sum(self._log_gamma(), n).rsqrt()[:, None, None])  # (h, 1, 1)

    def starts(self) -> dict[str, Draw]:
        """How the projections begin, whatever ``model.start`` says: the published ones are bare
        parameters, for which torch has no default."""
        d = self.qkvg.in_features
        draw = normal(1 / d) if self.spec.start == "inverse_hidden" else None
        names = ("qkvg.weight", *(("out.weight",) if isinstance(self.out, nn.Linear) else ()))
        return {name: draw or normal() for name in names}

    def forward(self, x: Tensor) -> Tensor:
        form = self.spec.training_form(x.shape[1])
        if self.training and self.spec.kernel == "fla":
            return self._fused(x, form)
        return self.chunkwise(x, form.chunk)[0] if isinstance(form, Chunkwise) else self.parallel(x)

    def parallel(self, x: Tensor) -> Tensor:
        q, k, v, g = self._project(x, start=0)
        q, k = self.positions.fade(q, k)
        o = self._retain(q, k, v, normalise=self.spec.normalise_decay)
        return self._close(o, g)

    def chunkwise(
        self, x: Tensor, chunk: int, state: RetentionState | None = None
    ) -> tuple[Tensor, RetentionState]:
        time = x.shape[1]
        state = state or self.initial_state(x.shape[0], x.dtype)
        q, k, v, g = self._project(x, start=state.position)
        memory, outputs, full = state.memory, [], time - time % chunk
        for low, high, size in ((0, full, chunk), (full, time, time - full)):
            if low < high:
                inside = slice(low, high)
                o, memory = self._chunks(q[:, :, inside], k[:, :, inside], v[:, :, inside], size, memory)
                outputs.append(o)
        o = self._normalise_rows(torch.cat(outputs, dim=2), state.position)
        return self._close(o, g), RetentionState(memory, state.position + time, state.own)

    def recurrent(self, x: Tensor, state: RetentionState) -> tuple[Tensor, RetentionState]:
        q, k, v, g = self._project(x[:, None], start=state.position)
        q, k, v = (y.to(state.memory.dtype) for y in (q, k, v))
        decay = self._powers(1, 2, like=q).mT
        memory = state.memory.mul_(decay) if state.own else state.memory * decay
        memory = memory.addcmul_(k.mT, v) if state.own else memory + k.mT @ v
        o = self._normalise_rows(q @ memory / self.divisor, state.position)
        return self._close(o, g)[:, 0], RetentionState(memory, state.position + 1, state.own)

    def initial_state(self, batch: int, dtype: torch.dtype | None = None, room: int = 0) -> RetentionState:
        """It does not grow: ``room`` says that it may be written in place, and limits nothing."""
        like = self.qkvg.weight
        shape = batch, self.heads, self.dk, self.dv
        memory = like.new_zeros(shape, dtype=wide(dtype or like.dtype))
        return RetentionState(memory, 0, own=room > 0)

    def stand_in_state(
        self, batch: int, context: int, room: int = 0, dtype: torch.dtype | None = None
    ) -> RetentionState:
        state = self.initial_state(batch, dtype, room)
        return state._replace(memory=fill(state.memory), position=context)

    def naive(self, x: Tensor) -> Tensor:
        qk, v, g = self._split(x)
        q, k = qk.transpose(1, 2).chunk(2, dim=1)
        gamma = self._log_gamma().exp()
        outputs = []
        for n in range(x.shape[1]):
            decays = torch.stack([gamma ** (n - m) for m in range(n + 1)], dim=1)  # (h, n+1)
            scale = math.sqrt(self.dk) if self.spec.scale_scores else 1.0
            if self.spec.normalise_decay:
                decays = decays / decays.sum(1, keepdim=True).sqrt()
            scores = naive_scores(self.spec.position, q[:, :, n], n, k[:, :, : n + 1])
            weights = scores * decays.to(x) / scale
            outputs.append((weights[..., None] * v.transpose(1, 2)[:, :, : n + 1]).sum(2))
        return self._close(torch.stack(outputs, dim=2), g)

    # ---- projections -------------------------------------------------------------------------
    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, time, d_model) -> q beside k: (batch, time, 2h, dk); v: (batch, time, h, dv);
        gate: (batch, time, h dv)."""
        keys, values = self.heads * self.dk, self.heads * self.dv
        qk, v, g = self.qkvg(x).split((2 * keys, values, values), dim=-1)
        return qk.unflatten(-1, (-1, self.dk)), v.unflatten(-1, (-1, self.dv)), g

    def _project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k: (batch, h, time, dk), turned; v: (batch, h, time, dv); gate: (batch, time, h dv)."""
        qk, v, g = self._split(x)
        q, k = self.positions.turn(qk, start).transpose(1, 2).chunk(2, dim=1)
        return q, k, v.transpose(1, 2), g

    def _close(self, o: Tensor, g: Tensor) -> Tensor:
        """o: (batch, h, time, dv) -> W_O (swish(g) * norm(o)): (batch, time, d_model)."""
        y: Tensor = self.out(functional.silu(g) * self.norm(o).to(g.dtype))
        return y

    # ---- retention ---------------------------------------------------------------------------
    def _retain(self, q: Tensor, k: Tensor, v: Tensor, normalise: bool = False) -> Tensor:
        """(Q K^T * D) V / divisor. q, k: (..., time, dk), v: (..., time, dv), h the second axis."""
        decay = self._decay(q.shape[-2], normalise, like=q)
        decay = decay.view(self.heads, *(1,) * (q.ndim - 4), *decay.shape[1:])
        scores = q @ k.mT
        scores *= decay  # in place: at small widths the time goes into touching fresh memory
        return scores @ v

    def _chunks(self, q: Tensor, k: Tensor, v: Tensor, size: int, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks of B = ``size`` tokens after ``memory``. q, k, v: (batch, h, chunks B, dk or dv);
        results: (batch, h, chunks B, dv) and the memory after them."""
        q, k, v = (y.reshape(*y.shape[:2], -1, size, y.shape[-1]) for y in (q, k, v))
        inner = self._retain(*self.positions.fade(q, k), v)
        since = self._powers(1, size + 1, like=q)[:, None] / self.divisor  # (h, 1, B, dk or 1)
        until = self._powers(0, size, like=q)[:, None].flip(2)
        across = self._powers(size, size + 1, like=q).mT  # (h, dk or 1, 1)
        written = ((k * until).mT @ v.to(memory.dtype)).to(memory.dtype)  # (batch, h, chunks, dk, dv)
        before = []
        for addition in written.unbind(2):
            before.append(memory)
            memory = memory * across + addition
        read = (q * since) @ torch.stack(before, dim=2)
        return (inner + read).flatten(2, 3), memory

    def _fused(self, x: Tensor, form: Form) -> Tensor:
        """``forward`` by kernels of the extra ``fla``."""
        q, k, v, g = self._project(x, start=0)
        o = kernels.retain(q, k, v, self._logs(like=q), self.divisor, form)
        return self._close(self._normalise_rows(o, 0), g)

    def _normalise_rows(self, o: Tensor, start: int) -> Tensor:
        """Divides row n by sqrt(sum_{m<=n} gamma^(n-m)), if asked. o: (batch, h, time, dv)."""
        if not self.spec.normalise_decay:
            return o
        if o.shape[2] == 1:  # no table: it would grow with the position
            return o * self._row(start, like=o)
        return o * self._rows(start, o.shape[2], o).T[:, :, None]

    # ---- constants, float64 ------------------------------------------------------------------
    def _log_gamma(self) -> Tensor:
        return torch.tensor(self.log_gammas, dtype=torch.float64, device="cpu")

    def _scaled_decays(self, length: int, normalise: bool) -> Tensor:
        """D / divisor, its rows normalised if asked: (h, length, length)."""
        decay = decay_matrix(self._log_gamma(), length) / self.divisor
        return decay * row_sums(self._log_gamma(), length).rsqrt().T[:, :, None] if normalise else decay

    def _lambda_powers(self, low: int, high: int) -> Tensor:
        """lambda^low ... lambda^(high-1): (h, high - low, dk) with xPos, else (h, high - low, 1)."""
        log_lambda = self._log_gamma()[:, None, None]
        if self.spec.position == "xpos":
            log_lambda = log_lambda + log_zetas(self.dk)
        exponents = torch.arange(low, high, dtype=torch.float64, device="cpu")
        return torch.exp(exponents[:, None] * log_lambda)
