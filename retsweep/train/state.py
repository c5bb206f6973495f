"""What a run has been through: the part of a checkpoint that is neither weights nor moments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    ``status`` is "ok" or "diverged@STEP", STEP being that of the loss that ended it, counted from
    1. ``steps`` and ``tokens`` (targets) count the steps whose loss was a number; ``last_loss`` is
    the last of those, in nats a token. ``seconds`` of training alone, over all the processes that
    took part; ``tokens_per_second`` leaves out the first step of each, which warms up. The best
    validation (``best_loss`` in nats, after ``best_step``) is None where none gave a number.
    """

    status: str
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    last_loss: float | None
    best_loss: float | None
    best_step: int | None
    seconds_here: float = field(default=0.0, compare=False)
    """Those of ``seconds`` that this process trained: of the process, not of how the training ended."""


@dataclass
class State:
    """Grows with the run; ``as_dict`` and back goes through every checkpoint."""

    step: int = 0
    """Optimiser steps done and looked at."""
    status: str = "running"
    tokens: int = 0
    seconds: float = 0.0
    first_tokens: int = 0
    first_seconds: float = 0.0
    """The first step of each process."""
    peak_memory_bytes: int = 0
    last_loss: float | None = None
    line_sum: float = 0.0
    line_count: int = 0
    """Losses since the last line of metrics.jsonl."""
    best_loss: float | None = None
    best_step: int | None = None
    above: int = 0
    fell: bool = False

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def tokens_per_second(self) -> float:
        """Of the steps that were warm; of all of them if none was."""
        tokens, seconds = self.tokens - self.first_tokens, self.seconds - self.first_seconds
        if tokens <= 0 or seconds <= 0:
            tokens, seconds = self.tokens, self.seconds
        return tokens / seconds if seconds > 0 else 0.0

    def outcome(self) -> Outcome:
        return Outcome(
            status=self.status,
            steps=self.step,
            tokens=self.tokens,
            seconds=self.seconds,
            tokens_per_second=self.tokens_per_second,
            peak_memory_bytes=self.peak_memory_bytes,
            last_loss=self.last_loss,
            best_loss=self.best_loss,
            best_step=self.best_step,
        )
