"""Pattern: letters cycled over the depth, each layer's YAML carrying its own letter."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from typing import ClassVar

from retsweep.spec.base import SpecError, spec
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import Layout


@spec
class Pattern(Layout):
    """``pattern`` is read from the embedding up and repeated until the depth is filled."""

    kind: ClassVar[str] = "pattern"
    pattern: str

    def stack(self, depth: int, heads: int, known: Mapping[str, LayerSpec]) -> tuple[LayerSpec, ...]:
        letters = {layer.letter: layer for layer in known.values()}
        listed = ", ".join(f"{letter} ({letters[letter].kind})" for letter in sorted(letters))
        if not self.pattern:
            raise SpecError(f"layout.pattern is empty; accepted letters: {listed}")
        for letter in self.pattern:
            if letter not in letters:
                raise SpecError(f"unknown layer letter {letter!r} in layout.pattern; known: {listed}")
        if len(self.pattern) > depth:
            raise SpecError(
                f"layout.pattern={self.pattern} has {len(self.pattern)} letters; "
                f"accepted: 1 to {depth} (scale.layers)"
            )
        return tuple(letters[letter] for letter in islice(cycle(self.pattern), depth))
