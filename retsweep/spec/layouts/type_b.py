"""Type B: the other mixer nearest the embedding, attention above it (RetFormers report)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from retsweep.spec.base import spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import Layout, in_range, layer_ratio, pick


@spec
class TypeB(Layout):
    """The other mixer first, then ``attention`` layers of attention."""

    kind: ClassVar[str] = "type_b"
    attention: int | None = None
    """None: half of the layers."""

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        count = self.count(depth)
        in_range("layout.attention", count, 0, depth, "attention layers of scale.layers")
        attention = (pick(known, "attention"),) * count
        return (pick(known, self.mixer),) * (depth - count) + attention

    def ar_ratio(self, layers: tuple[LayerSpec, ...], heads: int) -> str:
        if {layer.heads_by_kind(heads) for layer in layers} - {(heads, 0), (0, heads)}:
            return super().ar_ratio(layers, heads)  # beside attention stands neither: count heads
        return layer_ratio(sum(layer.heads_by_kind(heads)[0] for layer in layers) // heads, len(layers))

    def count(self, depth: int) -> int:
        return depth // 2 if self.attention is None else self.attention
