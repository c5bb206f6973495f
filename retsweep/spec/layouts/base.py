"""What every layout answers: which layer stands where, and what the report would call it."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import Any, ClassVar

from retsweep.spec.base import SpecError, spec
from retsweep.spec.layer import LayerSpec


@spec
class Layout:
    """``mixer`` names the layer that stands beside attention."""

    kind: ClassVar[str]
    mixer: str = "msr"

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        """The ``depth`` layers from the embedding up, chosen among the ``known`` ones by name.

        Raises SpecError if the layout does not fit this depth or these heads.
        """
        raise NotImplementedError(type(self).__name__)

    def architecture(self, layers: tuple[LayerSpec, ...], heads: int) -> str:
        """The row's name in the manner of the report: "Type A 10:2", "Transformer", "RetNet"."""
        uniform = uniform_architecture(layers, heads)
        return uniform or f"{self.title} {self.ar_ratio(layers, heads)}"

    def ar_ratio(self, layers: tuple[LayerSpec, ...], heads: int) -> str:
        """Attention : other heads over the network, reduced by their greatest common divisor."""
        pairs = [layer.heads_by_kind(heads) for layer in layers]
        attention, other = sum(a for a, _ in pairs), sum(o for _, o in pairs)
        common = gcd(attention, other) or 1
        return f"{attention // common}:{other // common}"

    def columns(self) -> dict[str, Any]:
        """What the layout adds to a row."""
        return {}

    @property
    def title(self) -> str:
        return self.kind.replace("_", " ").title()


@spec
class DepthLayout(Layout):
    """Some layers attend, the others do not. ``attention`` layers of attention; None: half of them."""

    attention: int | None = None

    def parts(
        self, depth: int, known: Mapping[str, LayerSpec]
    ) -> tuple[tuple[LayerSpec, ...], tuple[LayerSpec, ...]]:
        """The attention layers and the others. Raises SpecError if ``depth`` does not hold them."""
        count = depth // 2 if self.attention is None else self.attention
        in_range("layout.attention", count, 0, depth, "attention layers of scale.layers")
        return (pick(known, "attention"),) * count, (pick(known, self.mixer),) * (depth - count)

    def ar_ratio(self, layers: tuple[LayerSpec, ...], heads: int) -> str:
        """The report's k:(layers-k), not reduced, with "1:0" and "0:1" at the ends."""
        if {layer.heads_by_kind(heads) for layer in layers} - {(heads, 0), (0, heads)}:
            return super().ar_ratio(layers, heads)  # some layer is neither all attention nor all other
        attention = sum(layer.heads_by_kind(heads)[0] for layer in layers) // heads
        if attention in (0, len(layers)):
            return "1:0" if attention else "0:1"
        return f"{attention}:{len(layers) - attention}"


def uniform_architecture(layers: tuple[LayerSpec, ...], heads: int) -> str | None:
    """The name of a network whose layers are all alike and not hybrid; None for any other."""
    kinds = {layer.kind for layer in layers}
    attention, other = layers[0].heads_by_kind(heads)
    if len(kinds) > 1 or (attention and other):
        return None
    return layers[0].network or layers[0].kind


def pick(known: Mapping[str, LayerSpec], name: str) -> LayerSpec:
    """``known[name]``, or a SpecError that lists the names there are."""
    if name not in known:
        raise SpecError(f"unknown layer {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def in_range(key: str, value: int, low: int, high: int, what: str) -> None:
    """Raises SpecError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise SpecError(f"{key}={value} is out of range; accepted: {low} to {high} ({what})")
