"""Type C: every layer is a hybrid whose heads are split (RetFormers report)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from retsweep.spec.base import spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import Layout, in_range, pick


@spec
class TypeC(Layout):
    """``attention`` heads of attention in each layer, the other heads retention."""

    kind: ClassVar[str] = "type_c"
    attention: int | None = None
    """None: half of the heads."""

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        count = self.count(heads)
        in_range(
            "layout.attention",
            count,
            1,
            heads - 1,
            "attention heads of scale.heads; both kinds need one",
        )
        hybrid = dataclasses.replace(pick(known, "hybrid"), attention_heads=count)  # type: ignore[call-arg]
        return (hybrid,) * depth

    def ar_ratio(self, layers: tuple[LayerSpec, ...], heads: int) -> str:
        attention, other = layers[0].heads_by_kind(heads)
        return f"{attention}:{other}" if other else "1:0"

    def count(self, heads: int) -> int:
        return heads // 2 if self.attention is None else self.attention
