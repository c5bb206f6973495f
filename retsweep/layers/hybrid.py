"""Hybrid: k heads of attention and h - k heads of another mixer inside one layer.

two_stage (RetFormers, 2023, Type C), with a = d k/h and r = d (h-k)/h, all three maps with bias:

    y = W_O [attention(W_A x); mixer(W_R x)]      W_A: d -> a, W_R: d -> r, W_O: d -> d

each mixer whole (its own output projection included) on its narrower input. direct: every head
projects from d_model itself and one projection closes the heads of both kinds; retention's heads
are normalised and gated before it, as in a layer of their own:

    y = W_O [attention heads(x); swish(W_G x) * norm(retention heads(x))]      with bias
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from retsweep.layers.attention import AttentionSpec
from retsweep.layers.mixer import Heads, Mixer
from retsweep.layers.msr import MsrSpec
from retsweep.spec.base import SpecError, spec
from retsweep.spec.forms import Form, Recurrent
from retsweep.spec.layer import LayerSpec, Normalisation, Operation, Shape


@spec
class HybridSpec(LayerSpec):
    """``attention_heads`` None: half of the heads. ``decays`` of retention: ``own`` runs the
    schedule over the hybrid's own retention heads, ``full`` takes the full layer's schedule at the
    places of its last heads, where retention stands behind attention (the slowest decays)."""

    kind: ClassVar[str] = "hybrid"
    form: Literal["two_stage", "direct"] = "two_stage"
    attention_heads: int | None = None
    decays: Literal["own", "full"] = "own"
    attention: AttentionSpec
    mixer: LayerSpec

    # ---- what the layer is -------------------------------------------------------------------
    def split(self, heads: int) -> tuple[int, int]:
        """(heads of attention, heads of the other mixer)."""
        k = heads // 2 if self.attention_heads is None else self.attention_heads
        return k, heads - k

    def heads_by_kind(self, heads: int) -> tuple[int, int]:
        k, rest = self.split(heads)
        attention, other = self.mixer.heads_by_kind(rest)
        return k + attention, other

    @property
    def leaky(self) -> bool:
        return self.attention.leaky or self.mixer.leaky

    def causal(self) -> HybridSpec:
        return dataclasses.replace(self, attention=self.attention.causal(), mixer=self.mixer.causal())

    def columns(self) -> dict[str, Any]:
        inner = self.mixer.columns()
        positions = dict.fromkeys((self.attention.position, inner.get("position", self.attention.position)))
        own = {"hybrid_form": self.form, "hybrid_decays": self.decays, "position": "+".join(positions)}
        return {**inner, "mask": self.attention.mask, **own}

    def check(self, shape: Shape) -> None:
        k, rest = self.split(shape.heads)
        if not 1 <= k < shape.heads:
            raise SpecError(
                f"layer.hybrid.attention_heads={k} of scale.heads={shape.heads} leaves one kind without a "
                f"head; accepted: {f'1 to {shape.heads - 1}' if shape.heads > 1 else 'two heads or more'}"
            )
        if not self.mixer.mixes:
            raise SpecError(
                f"layer.hybrid.mixer={self.mixer.kind} mixes nothing; accepted: a mixer such as msr"
            )
        if not isinstance(self.mixer, MsrSpec) and (self.form == "direct" or self.decays == "full"):
            raise SpecError(
                "layer.hybrid.form=direct and layer.hybrid.decays=full are of retention's heads, not of "
                f"{self.mixer.kind}; accepted with {self.mixer.kind}: form=two_stage and decays=own"
            )
        self.attention.check(Shape(k * shape.head_dim, k))
        self.mixer.check(Shape(rest * shape.head_dim, rest))

    def check_device(self, device: str, precision: str) -> None:
        for part in (self.attention, self.mixer):
            part.check_device(device, precision)

    def portable(self) -> HybridSpec:
        return dataclasses.replace(self, mixer=self.mixer.portable())

    def training_form(self, tokens: int) -> Form:
        return self.mixer.training_form(tokens)

    def resolved(self, tokens: int) -> HybridSpec:
        attention, mixer = self.attention.resolved(tokens), self.mixer.resolved(tokens)
        return dataclasses.replace(self, attention=attention, mixer=mixer)

    # ---- its parts ---------------------------------------------------------------------------
    def parts(self, shape: Shape) -> tuple[Heads, Heads]:
        """The heads of both kinds: whole mixers on a and r channels, or open ones on d_model."""
        whole = self.form == "two_stage"
        k, rest = (
            Heads(count * shape.head_dim if whole else shape.d_model, count, shape.head_dim, output=whole)
            for count in self.split(shape.heads)
        )
        return k, rest

    def inputs(self, shape: Shape) -> dict[str, int]:
        """Outputs of the maps W_A and W_R, by name."""
        attention, mixer = self.parts(shape)
        both = {"attention_in": attention.d_model, "mixer_in": mixer.d_model}
        return both if self.form == "two_stage" else {}

    def closing_width(self, shape: Shape) -> int:
        """Inputs of W_O."""
        attention, mixer = self.parts(shape)
        expansion = self.mixer.value_expansion if isinstance(self.mixer, MsrSpec) else 1
        return attention.width + mixer.width * (1 if mixer.output else expansion)

    def log_decays(self, heads: int) -> tuple[float, ...]:
        """log gamma of the retention heads, of ``heads`` in the layer."""
        assert isinstance(self.mixer, MsrSpec)
        _, rest = self.split(heads)
        return self.mixer.log_decays(rest if self.decays == "own" else heads)[-rest:]

    # ---- census ------------------------------------------------------------------------------
    def parameters(self, shape: Shape) -> dict[str, int]:
        d, (attention, mixer) = shape.d_model, self.parts(shape)
        sizes = {"attention": self.attention.parameters_of(attention)}
        if isinstance(self.mixer, MsrSpec):
            sizes["mixer"] = self.mixer.parameters_of(mixer)
        else:
            sizes["mixer"] = self.mixer.parameters(Shape(mixer.d_model, mixer.heads))
        for name, width in self.inputs(shape).items():
            sizes[name] = {"weight": d * width, "bias": width}
        sizes["out"] = {"weight": self.closing_width(shape) * d, "bias": d}
        return {f"{part}.{name}": size for part, inner in sizes.items() for name, size in inner.items()}

    def operations(self, shape: Shape, form: Form) -> tuple[Operation, ...]:
        """Those of the two mixers, and the maps in and out."""
        d, (attention, mixer) = shape.d_model, self.parts(shape)
        tokens = 1 if isinstance(form, Recurrent) else form.tokens
        if isinstance(self.mixer, MsrSpec):
            inner = self.mixer.operations_of(mixer, form)
        else:
            inner = self.mixer.operations(Shape(mixer.d_model, mixer.heads), form)
        return (
            *(
                Operation("input", name, "projection", tokens * d * width, self.kind)
                for name, width in self.inputs(shape).items()
            ),
            *(part.below("attention") for part in self.attention.operations_of(attention, form)),
            *(part.below("mixer") for part in inner),
            Operation("output", "out", "projection", tokens * self.closing_width(shape) * d, self.kind),
        )

    def normalisations(self, shape: Shape, tokens: int) -> tuple[Normalisation, ...]:
        """Those of the other mixer: attention has none."""
        _, mixer = self.parts(shape)
        if isinstance(self.mixer, MsrSpec):
            inner = self.mixer.normalisations_of(mixer, tokens)
        else:
            inner = self.mixer.normalisations(Shape(mixer.d_model, mixer.heads), tokens)
        return tuple(part.below("mixer") for part in inner)

    def state_elements(self, shape: Shape, context: int) -> dict[str, int]:
        k, rest = (Shape(count * shape.head_dim, count) for count in self.split(shape.heads))
        both = self.attention.state_elements(k, context), self.mixer.state_elements(rest, context)
        return {kind: sum(one[kind] for one in both) for kind in ("cache", "state")}

    # ---- building ----------------------------------------------------------------------------
    def build(self, shape: Shape) -> Hybrid:
        attention, mixer = self.parts(shape)
        if isinstance(self.mixer, MsrSpec):
            built: Mixer = self.mixer.build_of(mixer, self.log_decays(shape.heads))
        else:
            built = cast(Mixer, self.mixer.build(Shape(mixer.d_model, mixer.heads)))
        return Hybrid(
            self.attention.build_of(attention),
            built,
            inputs={name: nn.Linear(shape.d_model, width) for name, width in self.inputs(shape).items()},
            out=nn.Linear(self.closing_width(shape), shape.d_model),
        )


class HybridState(NamedTuple):
    """The states of the two mixers, each as that mixer gave it."""

    attention: Any
    mixer: Any


class Hybrid(Mixer):
    """Two mixers side by side; ``inputs`` narrow x for each, or both read it as it is."""

    def __init__(self, attention: Mixer, mixer: Mixer, inputs: dict[str, nn.Linear], out: nn.Linear) -> None:
        super().__init__()
        self.attention_in = inputs.get("attention_in", nn.Identity())
        self.mixer_in = inputs.get("mixer_in", nn.Identity())
        self.attention, self.mixer, self.out = attention, mixer, out

    def forward(self, x: Tensor) -> Tensor:
        return self._close(self.attention(self.attention_in(x)), self.mixer(self.mixer_in(x)))

    def parallel(self, x: Tensor) -> Tensor:
        return self._close(
            self.attention.parallel(self.attention_in(x)), self.mixer.parallel(self.mixer_in(x))
        )

    def chunkwise(
        self, x: Tensor, chunk: int, state: HybridState | None = None
    ) -> tuple[Tensor, HybridState]:
        before = state or HybridState(None, None)
        a, attention = self.attention.chunkwise(self.attention_in(x), chunk, before.attention)
        r, mixer = self.mixer.chunkwise(self.mixer_in(x), chunk, before.mixer)
        return self._close(a, r), HybridState(attention, mixer)

    def recurrent(self, x: Tensor, state: HybridState) -> tuple[Tensor, HybridState]:
        a, attention = self.attention.recurrent(self.attention_in(x), state.attention)
        r, mixer = self.mixer.recurrent(self.mixer_in(x), state.mixer)
        return self._close(a, r), HybridState(attention, mixer)

    def naive(self, x: Tensor) -> Tensor:
        return self._close(self.attention.naive(self.attention_in(x)), self.mixer.naive(self.mixer_in(x)))

    def initial_state(self, batch: int, dtype: torch.dtype | None = None, room: int = 0) -> HybridState:
        return HybridState(
            self.attention.initial_state(batch, dtype, room),
            self.mixer.initial_state(batch, dtype, room),
        )

    def stand_in_state(
        self, batch: int, context: int, room: int = 0, dtype: torch.dtype | None = None
    ) -> HybridState:
        return HybridState(
            self.attention.stand_in_state(batch, context, room, dtype),
            self.mixer.stand_in_state(batch, context, room, dtype),
        )

    def _close(self, a: Tensor, r: Tensor) -> Tensor:
        y: Tensor = self.out(torch.cat([a, r], dim=-1))
        return y
