"""How large a model is, whatever its layers are."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field, PositiveInt

from retsweep.spec.base import LABEL, SpecError, spec
from retsweep.spec.layer import Shape

#: Far beyond what anybody builds: beyond it a slip would take the memory before it is told.
DEEPEST, LARGEST = 4096, 1 << 24
Size = Annotated[PositiveInt, Field(le=LARGEST)]


@spec
class Scale:
    """Depth, width and the lengths that go with them.

    ``ffn`` is the hidden width of the feed-forward network, ``vocabulary`` the rows of embedding
    and head, ``context`` the tokens a model reads at once (inputs; the targets are one later).
    """

    name: str = dataclasses.field(metadata=LABEL)
    layers: Annotated[PositiveInt, Field(le=DEEPEST)]
    d_model: Size
    heads: Size
    ffn: Size
    vocabulary: Size
    context: Size

    def __post_init__(self) -> None:
        if self.d_model % self.heads:
            fit = [h for h in range(1, min(self.d_model, 64) + 1) if self.d_model % h == 0]
            raise SpecError(
                f"scale.heads={self.heads} does not divide scale.d_model={self.d_model}; "
                f"these do: {', '.join(map(str, fit))}"
            )

    @property
    def shape(self) -> Shape:
        return Shape(self.d_model, self.heads)
