"""Where the time of a sweep went: what of it was training steps, and what was not.

A row carries ``trial_seconds``, from the claim to the row, and ``trial_training_seconds``, those of them
in training steps: both of the process that ended the trial, so that a resumed one counts what was done
since. What workers spend outside trials (starting, imports, waiting for the last one) is the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spent:
    """Seconds of all workers together; ``wall`` is one clock's, ``trials`` of which ``training``."""

    wall: float
    workers: int
    trials: float
    training: float

    @property
    def training_share(self) -> float:
        return self.training / (self.wall * self.workers)

    @property
    def trials_share(self) -> float:
        """Of what trials do beside training steps: checks, building, evaluation, checkpoints."""
        return (self.trials - self.training) / (self.wall * self.workers)

    def line(self) -> str:
        """The three shares in words: they add up to all of the workers' time."""
        rest = 1 - self.training_share - self.trials_share
        return (
            f"of {self.workers} workers' time {self.training_share:.0%} were training steps, "
            f"{self.trials_share:.0%} the rest of the trials (checks, evaluation, checkpoints), "
            f"{rest:.0%} starting and waiting"
        )


def spent_by(rows: Iterable[Mapping[str, Any]], wall: float, workers: int) -> Spent | None:
    """Of the ``rows`` that the workers of one command finished; None if none of them trained."""
    trained = [row for row in rows if "trial_training_seconds" in row and "trial_seconds" in row]
    if not trained or wall <= 0:
        return None
    return Spent(
        wall,
        workers,
        sum(row["trial_seconds"] for row in trained),
        sum(row["trial_training_seconds"] for row in trained),
    )
