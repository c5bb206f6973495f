"""Where the time of a sweep went: what of it was training steps, and what was not.

A row carries ``trial_seconds``, from the claim to the row, and ``trial_training_seconds``, those of them
in training steps: both of the process that ended the trial, so that a resumed one counts what was done
since. A row that failed says nothing of its steps. The rest is what the command did outside trials:
imports, planning, reading texts, starting workers, waiting for the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spent:
    """Seconds of all workers together; ``wall`` is one clock's, from the command's begin, ``trials`` of
    those that trained, of which ``training``, and ``failed`` of those that raised."""

    wall: float
    workers: int
    trials: float
    training: float
    failed: float = 0.0

    @property
    def training_share(self) -> float:
        return self.training / (self.wall * self.workers)

    @property
    def trials_share(self) -> float:
        """Of what trials do beside training steps: checks, building, evaluation, checkpoints."""
        return (self.trials - self.training) / (self.wall * self.workers)

    @property
    def failed_share(self) -> float:
        return self.failed / (self.wall * self.workers)

    def line(self) -> str:
        """The shares in words: they add up to all of the workers' time."""
        rest = 1 - self.training_share - self.trials_share - self.failed_share
        failed = f"{self.failed_share:.0%} trials that failed, " if self.failed else ""
        return (
            f"of {self.workers} workers' time {self.training_share:.0%} were training steps, "
            f"{self.trials_share:.0%} the rest of the trials (checks, evaluation, checkpoints), "
            f"{failed}{rest:.0%} planning, starting and waiting"
        )


def spent_by(rows: Iterable[Mapping[str, Any]], wall: float, workers: int) -> Spent | None:
    """Of the ``rows`` that the workers of one command wrote, and there must be one for each trial that they
    took; None if none of them trained."""
    timed = [row for row in rows if "trial_seconds" in row]
    trained = [row for row in timed if "trial_training_seconds" in row]
    if not trained or wall <= 0:
        return None
    return Spent(
        wall,
        workers,
        sum(row["trial_seconds"] for row in trained),
        sum(row["trial_training_seconds"] for row in trained),
        sum(row["trial_seconds"] for row in timed if row.get("status") == "failed"),
    )
