"""What is asked of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from retsweep.layers.precision import Precision

WHAT = ("train", "decode")


class NotMeasured(Exception):
    """Nothing can be measured. Its text is one line for the user."""


@dataclass(frozen=True)
class Options:
    """``device``: as torch names it. ``batch`` of training; ``head_tokens``: tokens whose logits our own
    rows hold at once, None for all; ``context`` and ``tokens`` a turn of decoding, which has a batch of 1;
    ``rounds``: turns of each model."""

    device: str
    what: tuple[str, ...]
    scale: str
    batch: int
    rounds: int
    head_tokens: int | None
    context: int
    tokens: int
    threads: int
    precision: Precision
    clock: Literal["wall", "cpu"]

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        """Of device."""
        return "cpu" if self.device == "cpu" else "cuda"
