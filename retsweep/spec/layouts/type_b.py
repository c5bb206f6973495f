"""Type B: the other mixer nearest the embedding, attention above it (RetFormers report)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from retsweep.spec.base import spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import DepthLayout


@spec
class TypeB(DepthLayout):
    """The other mixer first, then ``attention`` layers of attention."""

    kind: ClassVar[str] = "type_b"

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        attention, other = self.parts(depth, known)
        return other + attention
