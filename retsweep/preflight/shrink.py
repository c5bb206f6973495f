"""A copy of a spec that runs in every form in a moment: the same layers in the same order, the same
heads and head split, narrow, with a small vocabulary and without dropout."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from retsweep.layers.initialise import generator
from retsweep.model import LanguageModel, build
from retsweep.spec.base import SpecError
from retsweep.spec.run import RunSpec

#: Two rotary pairs, so that their angles differ. Of two channels a head's norm would leave no more
#: than a sign, behind which errors and gradients disappear.
SMALLEST_HEAD = 4
SMALLEST_WIDTH = 16
FFN, VOCABULARY = 24, 61
#: How far parameters are moved from their start.
MOVED = 0.1


def shrunken(spec: RunSpec) -> RunSpec:
    """The copy. ``scale.context`` stays: nothing is allocated by it. Its layers keep the form in which
    they train at that length, however few tokens the copy reads, but no kernel of a GPU's."""
    heads = spec.scale.heads
    refused: SpecError | None = None
    for head_dim in _head_dims(spec):
        width = dataclasses.replace(
            spec.scale, d_model=heads * head_dim, ffn=min(FFN, spec.scale.ffn), vocabulary=VOCABULARY
        )
        try:
            return dataclasses.replace(
                spec,
                scale=width,
                layers=tuple(layer.portable() for layer in spec.trained_layers),
                model=dataclasses.replace(spec.model, dropout=0.0),
            )
        except SpecError as error:  # a layer that cannot have this shape
            refused = error
    assert refused is not None
    raise refused


def without_leak(spec: RunSpec) -> RunSpec:
    """The same network, its leaks closed; the same weights fit."""
    return dataclasses.replace(spec, layers=tuple(layer.causal() for layer in spec.layers))


def built(spec: RunSpec, dtype: torch.dtype, *, moved: bool = True) -> LanguageModel:
    """The model of ``spec`` on the CPU. ``moved``: every parameter is moved from its start by
    N(0, MOVED^2), so that no bias of zero and no weight of one hides a form that forgot it."""
    model = build(spec, dtype=dtype)
    if moved:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator(spec.seed, f"moved {name}"))
                parameter.add_(MOVED * noise.to(dtype))
    return model


def tokens(batch: int, time: int) -> Tensor:
    """(batch, time) of int64, the same each time."""
    stream = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (batch, time), generator=stream)


def _head_dims(spec: RunSpec) -> list[int]:
    """Even sizes from the smallest up, and the spec's own, which its layers do accept."""
    low = max(SMALLEST_HEAD, 2 * -(-SMALLEST_WIDTH // (2 * spec.scale.heads)))
    own = spec.scale.shape.head_dim
    return [*range(low, max(own, low + 1), 2), own]
