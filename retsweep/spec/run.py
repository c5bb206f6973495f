"""One run, whole: what is built, on what it is trained, how, and what is asked of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from retsweep.spec.base import SpecError, spec
from retsweep.spec.evaluate import Evaluate
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import Layout
from retsweep.spec.protocol import Protocol
from retsweep.spec.scale import Scale


@spec
class Model:
    """What the blocks share. The published model has no final LayerNorm and a head with bias."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    final_norm: bool = False
    head_bias: bool = True
    start: Literal["fan_in", "torch"] = "fan_in"
    """How weights begin: N(0, 1/fan_in), the head's std a tenth of that; or torch's own default of each
    module, as published."""
    branches: Literal["scaled", "plain"] = "scaled"
    """Whether mixers and FFNs are added to the residual stream times 1/sqrt(2 layers), or as they
    are, as published. The weights could absorb the factor, so the same functions can be reached; the
    start differs, and under AdamW how fast a branch moves."""


@dataclass(frozen=True)
class RunSpec:
    """A run that has been checked and can be built. Made by :func:`retsweep.spec.load.load`.

    ``layers`` are the mixers from the embedding up, ``scale.layers`` of them.
    """

    scale: Scale
    layout: Layout
    layers: tuple[LayerSpec, ...]
    model: Model
    protocol: Protocol
    corpus: Any
    tokenizer: Any
    task: Any
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.layers) != self.scale.layers:
            raise SpecError(f"{len(self.layers)} layers given, scale.layers={self.scale.layers}")
        for layer in dict.fromkeys(self.layers):
            layer.check(self.scale.shape)

    def with_seed(self, seed: int) -> RunSpec:
        return dataclasses.replace(self, seed=seed)

    @property
    def trained_layers(self) -> tuple[LayerSpec, ...]:
        """``layers`` as ``scale.context`` tokens are computed by them: each in a form that it names."""
        return self.layers_at(self.scale.context)

    @property
    def settled_layers(self) -> tuple[LayerSpec, ...]:
        """``trained_layers`` where the task trains. Elsewhere, as in counts and in decoding, the form in
        which they train can change nothing that is found: those of one token, for which nothing is
        chosen by length, without kernels of training steps."""
        return (
            self.trained_layers
            if self.task.trains
            else tuple(layer.portable() for layer in self.layers_at(1))
        )

    def layers_at(self, tokens: int) -> tuple[LayerSpec, ...]:
        return tuple(layer.resolved(tokens) for layer in self.layers)

    def check_device(self, device: str) -> None:
        """Raises SpecError if ``device`` ("cpu", "cuda", "cuda:0") cannot compute what the task does."""
        self.protocol.check_device(device)
        for layer in dict.fromkeys(self.layers) if self.task.trains else ():
            layer.check_device(device, self.protocol.precision)

    @property
    def leaky(self) -> bool:
        return any(layer.leaky for layer in self.layers)

    @property
    def pattern(self) -> str:
        """A letter a layer, from the embedding up: "AAAAAAAAAARR"."""
        return "".join(layer.letter for layer in self.layers)

    @property
    def heads_by_kind(self) -> tuple[int, int]:
        """(attention heads, other heads) over the whole network."""
        pairs = [layer.heads_by_kind(self.scale.heads) for layer in self.layers]
        return sum(a for a, _ in pairs), sum(r for _, r in pairs)
