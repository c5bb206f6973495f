"""What must hold, and what is said when it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: By kind of device: how many times a peer's speed training must reach, the utilisation of the device's
#: own matrix product, and the batch at which they are asked. On a CPU 0.97 is parity within noise.
TRAIN = {"cpu": 0.97, "cuda": 1.2}
UTILISATION = {"cpu": 0.70, "cuda": 0.45}
BATCH = {"cpu": 4, "cuda": 32}
#: How many times a peer's speed decoding must reach.
DECODE = 1.0


@dataclass(frozen=True)
class Judged:
    """One number and the least that it must be."""

    name: str
    value: float
    least: float

    @property
    def holds(self) -> bool:
        return self.value >= self.least

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} ({'>=' if self.holds else 'BELOW'} {self.least:g})"


def verdict(judged: Sequence[Judged], absent: Sequence[str] = ()) -> str:
    """One line with every number, those below their target first, and who was not there to compare with."""
    missed = [one for one in judged if not one.holds]
    head = f"{len(missed)} of {len(judged)} targets missed" if missed else f"all {len(judged)} targets hold"
    numbers = ", ".join(map(str, [*missed, *(one for one in judged if one.holds)]))
    return f"{head}: {numbers}" + (f"; not measured: {'; '.join(absent)}" if absent else "")
