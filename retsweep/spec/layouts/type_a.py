"""Type A: attention nearest the embedding, the other mixer above it (RetFormers report)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from retsweep.spec.base import spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import DepthLayout


@spec
class TypeA(DepthLayout):
    """``attention`` layers of attention first, then the rest."""

    kind: ClassVar[str] = "type_a"

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        attention, other = self.parts(depth, known)
        return attention + other
