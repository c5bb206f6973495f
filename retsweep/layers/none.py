"""None: no mixer. The block is its feed-forward network alone, which sees one token at a time."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from retsweep.layers.mixer import Mixer
from retsweep.spec.base import spec
from retsweep.spec.forms import Form
from retsweep.spec.layer import LayerSpec, Operation, Shape


@spec
class NoneSpec(LayerSpec):
    """It has no heads of either kind: beside attention (``layout.mixer=none``) only attention's count."""

    kind: ClassVar[str] = "none"
    network: ClassVar[str] = "FFN only"
    mixes: ClassVar[bool] = False

    def heads_by_kind(self, heads: int) -> tuple[int, int]:
        return 0, 0

    def parameters(self, shape: Shape) -> dict[str, int]:
        return {}

    def operations(self, shape: Shape, form: Form) -> tuple[Operation, ...]:
        return ()

    def state_elements(self, shape: Shape, context: int) -> dict[str, int]:
        return {"cache": 0, "state": 0}

    def build(self, shape: Shape) -> NoMixer:
        return NoMixer()


class NoMixer(Mixer):
    """Adds nothing to the residual stream; a model leaves it out altogether."""

    def parallel(self, x: Tensor) -> Tensor:
        return 0 * x

    def chunkwise(self, x: Tensor, chunk: int, state: tuple[()] | None = None) -> tuple[Tensor, tuple[()]]:
        return 0 * x, ()

    def recurrent(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return 0 * x, ()

    def naive(self, x: Tensor) -> Tensor:
        return 0 * x

    def initial_state(self, batch: int, dtype: torch.dtype | None = None, room: int = 0) -> tuple[()]:
        return ()

    def stand_in_state(
        self, batch: int, context: int, room: int = 0, dtype: torch.dtype | None = None
    ) -> tuple[()]:
        return ()
