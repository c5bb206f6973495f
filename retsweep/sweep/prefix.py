"""A run that stops at a rung: the same run, which goes on from its checkpoint if it is promoted.

What is known of it there is the validation perplexity that its own protocol has it write at that step
(``protocol.evaluation.every``), so that nothing about the run depends on where it stops.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The lines of a training; see retsweep/train/metrics.py.
METRICS = "metrics.jsonl"
LARGEST = 700.0
"""Nats whose exponential is still a number."""


class Prefix:
    """The part of a run up to ``until`` optimiser steps (None: all of it), in the trial's ``folder``."""

    def __init__(self, until: int | None, folder: Path) -> None:
        self._until, self._folder = until, folder
        self._done = 0
        self._loss: float | None = None

    def progress(self, done: int) -> None:
        """``done`` optimiser steps are behind."""
        self._done = done

    def hear(self, line: Mapping[str, Any]) -> None:
        """A line of metrics: that of the rung is remembered."""
        if self._until is not None and line.get("step") == self._until and "valid_loss" in line:
            self._loss = _number(line["valid_loss"])

    @property
    def over(self) -> bool:
        return self._until is not None and self._done >= self._until

    def perplexity(self) -> float:
        """On the validation split at the rung; infinite if it is no number. Where this process did not see
        it (the one before was killed between the rung and the ledger) the trial's own file says it. Raises
        LookupError if that does not either."""
        if self._loss is None:
            self._read()
        if self._loss is None:
            raise LookupError(f"{self._folder / METRICS} has no validation at step {self._until}")
        return math.exp(self._loss) if self._loss < LARGEST else math.inf

    def _read(self) -> None:
        try:
            lines = (self._folder / METRICS).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            self.hear(json.loads(line))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.inf
