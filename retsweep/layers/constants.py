"""Constants that depend on positions: computed once in float64, kept where they are used.

They are not buffers, so ``module.to(bfloat16)`` leaves their precision alone and no checkpoint
holds them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from retsweep.layers.mixer import wide

#: Lengths kept at a time: a training length, the shorter last window and chunk, and some to spare.
KEPT = 8


class Constants:
    """``compute(*sizes)`` gives a float64 (or complex128) tensor on the CPU; calling the object
    gives it on the device of ``like``, in float32 unless ``like`` is float64."""

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        self._compute = compute
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, *sizes: int | bool, like: Tensor) -> Tensor:
        dtype = wide(like.dtype)
        key = (*sizes, like.device, dtype)
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            with torch.inference_mode(False), torch.no_grad():  # else training could not use it
                value = self._compute(*sizes)
                kind = dtype.to_complex() if value.is_complex() else dtype
                self._kept[key] = value.to(kind).to(like.device)
        return self._kept[key]


class Rows:
    """A table with a row a position, grown by doubling as later positions are asked for."""

    def __init__(self, compute: Callable[[int], Tensor]) -> None:
        self._table = Constants(compute)
        self._length = 64

    def __call__(self, start: int, length: int, like: Tensor) -> Tensor:
        """Rows ``start`` to ``start + length - 1``."""
        while self._length < start + length:
            self._length *= 2
        return self._table(self._length, like=like)[start : start + length]
