"""Placed: so many attention layers, spread over the depth in ways that types A and B do not know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeInt

from retsweep.spec.base import spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import DepthLayout


@spec
class Placed(DepthLayout):
    """``interleaved`` alternates from the embedding up, attention first, until one kind is used up;
    ``spread`` puts attention layer i of k at depth (i + 1/2) L / k, rounded down; ``random`` draws
    the places, each set of them as likely, from ``draw``."""

    kind: ClassVar[str] = "placed"
    placement: Literal["interleaved", "spread", "random"] = "spread"
    draw: NonNegativeInt = 0

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        attention, other = self.parts(depth, known)
        places = self.places(depth, len(attention))
        first, second = iter(attention), iter(other)
        return tuple(next(first) if index in places else next(second) for index in range(depth))

    def places(self, depth: int, count: int) -> frozenset[int]:
        """The depths, from 0 at the embedding, at which the ``count`` attention layers stand."""
        if self.placement == "random":
            return frozenset(sorted(range(depth), key=lambda place: self._lot(depth, count, place))[:count])
        if self.placement == "spread":
            return frozenset((2 * index + 1) * depth // (2 * count) for index in range(count))
        pairs = min(count, depth - count)
        return frozenset([*range(0, 2 * pairs, 2), *range(2 * pairs, pairs + count)])

    def _lot(self, depth: int, count: int, place: int) -> bytes:
        """What a place drew: the same on every version of Python, as a generator's might not be."""
        return hashlib.sha256(f"{self.draw}/{depth}/{count}/{place}".encode()).digest()

    def columns(self) -> dict[str, Any]:
        return {"placement": self.placement}

    @property
    def title(self) -> str:
        word = self.placement.title()
        return f"{word} {self.draw}," if self.placement == "random" else word
