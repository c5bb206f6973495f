"""What a layer tells the rest of the house about itself, without building anything.

A layer file (``retsweep/layers/<name>.py``) holds one subclass of :class:`LayerSpec` and the
``torch.nn.Module`` that it builds. A layer reports a **census** (parameters, multiply-accumulates,
state elements); what they cost under which convention is decided in ``retsweep/costs`` alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from retsweep.spec.base import LABEL, spec
from retsweep.spec.forms import Form, Parallel

if TYPE_CHECKING:
    from torch import nn

Group = Literal["projection", "interaction", "ffn", "head"]


@dataclass(frozen=True)
class Shape:
    """Where a mixer sits: it maps (batch, time, ``d_model``) to the same, with ``heads`` heads."""

    d_model: int
    heads: int

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads


@dataclass(frozen=True)
class Operation:
    """One matrix product of a forward pass.

    ``module`` is the dotted path, below the mixer (or model), of the module that executes it: the
    path under which a tracer reports it, ``""`` for the mixer itself. ``name`` says what it is.
    ``macs`` are multiply-accumulates for one sequence (batch 1). ``mixer`` is the kind of the
    innermost mixer it belongs to ("attention", "msr", ...; "" outside any mixer).
    """

    name: str
    module: str
    group: Group
    macs: int
    mixer: str = ""

    def below(self, path: str) -> Operation:
        """The same operation seen from a parent that holds this module as ``path``."""
        module = f"{path}.{self.module}" if self.module else path
        return Operation(self.name, module, self.group, self.macs, self.mixer)


@dataclass(frozen=True)
class Normalisation:
    """One normalisation of a forward pass. No matrix product, but fvcore counts it.

    ``module`` as in Operation. ``elements`` are those of one sequence. ``weighted``: the very
    operation that normalises also applies weight and bias.
    """

    module: str
    elements: int
    weighted: bool

    def below(self, path: str) -> Normalisation:
        """The same seen from a parent that holds this module as ``path``."""
        return Normalisation(f"{path}.{self.module}" if self.module else path, self.elements, self.weighted)


@spec
class LayerSpec:
    """Base of every layer's config: subclass it in ``retsweep/layers/<name>.py``."""

    kind: ClassVar[str]
    """The layer's name: that of its file and of its YAML."""
    network: ClassVar[str] = ""
    """What the field calls a network of this layer alone ("RetNet"); ``kind`` if it has no name."""
    mixes: ClassVar[bool] = True
    """False: a block of this layer has no mixer and no norm before it, only its FFN."""

    letter: Annotated[str, Field(pattern="^[A-Z]$")] = dataclasses.field(metadata=LABEL)
    """Stands for the layer in ``layout.pattern``."""

    # ---- what the layer is -------------------------------------------------------------------
    def heads_by_kind(self, heads: int) -> tuple[int, int]:
        """(attention heads, other heads) in a layer of ``heads`` heads.

        A mixer without heads counts as ``heads`` of the second kind.
        """
        return 0, heads

    @property
    def leaky(self) -> bool:
        """Whether the layer lets a position see later ones, on purpose."""
        return False

    @property
    def fft(self) -> bool:
        """Whether a form is computed through an FFT, whose rounding reaches earlier positions."""
        return False

    def causal(self) -> LayerSpec:
        """The same layer, which the same weights fit, without the leak: itself if it has none."""
        if self.leaky:
            raise NotImplementedError(f"{type(self).__name__}.causal")
        return self

    def columns(self) -> dict[str, Any]:
        """What the layer adds to a row: any of ``position``, ``hybrid_form``, ``start`` ..."""
        return {}

    def check(self, shape: Shape) -> None:
        """Raises SpecError, in one line, if the layer cannot have this shape."""

    def check_device(self, device: str, precision: str) -> None:
        """Raises SpecError, in one line, if the layer cannot be trained on ``device`` ("cpu", "cuda",
        "cuda:0") in ``precision``."""

    def portable(self) -> LayerSpec:
        """The same layer computed by plain torch, as any device can: itself unless training steps have
        kernels of their own."""
        return self

    def training_form(self, tokens: int) -> Form:
        """The form in which the built mixer's ``forward`` computes ``tokens`` tokens."""
        return Parallel(tokens)

    def resolved(self, tokens: int) -> Self:
        """The same layer with nothing left open that the length decides: what it is when it trains on
        ``tokens`` tokens. Itself unless ``training_form`` is chosen by length."""
        return self

    # ---- census ------------------------------------------------------------------------------
    def parameters(self, shape: Shape) -> dict[str, int]:
        """Elements of each trainable tensor, by its dotted name below the mixer module."""
        raise NotImplementedError(type(self).__name__)

    def operations(self, shape: Shape, form: Form) -> tuple[Operation, ...]:
        """Every matrix product of ``form``, for one sequence."""
        raise NotImplementedError(type(self).__name__)

    def normalisations(self, shape: Shape, tokens: int) -> tuple[Normalisation, ...]:
        """Every layer or group norm inside the mixer over ``tokens`` tokens, in any form."""
        return ()

    def state_elements(self, shape: Shape, context: int) -> dict[str, int]:
        """Elements kept between generated tokens at ``context``: ``cache`` grows with the
        context (in the activations' dtype), ``state`` does not (always float32)."""
        raise NotImplementedError(type(self).__name__)

    # ---- building ----------------------------------------------------------------------------
    def build(self, shape: Shape) -> nn.Module:
        """The mixer module, (batch, time, d_model) -> (batch, time, d_model), not initialised."""
        raise NotImplementedError(type(self).__name__)
