"""How large a model is, whatever its layers are."""

from __future__ import annotations

import dataclasses

from pydantic import PositiveInt

from retsweep.spec.base import LABEL, SpecError, spec
from retsweep.spec.layer import Shape


@spec
class Scale:
    """Depth, width and the lengths that go with them.

    ``ffn`` is the hidden width of the feed-forward network, ``vocabulary`` the rows of embedding
    and head, ``context`` the tokens a model reads at once (inputs; the targets are one later).
    """

    name: str = dataclasses.field(metadata=LABEL)
    layers: PositiveInt
    d_model: PositiveInt
    heads: PositiveInt
    ffn: PositiveInt
    vocabulary: PositiveInt
    context: PositiveInt

    def __post_init__(self) -> None:
        if self.d_model % self.heads:
            fit = [h for h in range(1, self.d_model + 1) if self.d_model % h == 0 and h <= 64]
            raise SpecError(
                f"scale.heads={self.heads} does not divide scale.d_model={self.d_model}; "
                f"these do: {', '.join(map(str, fit))}"
            )

    @property
    def shape(self) -> Shape:
        return Shape(self.d_model, self.heads)
