"""When a run is over because its loss left and does not come back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retsweep.spec.protocol import Protocol

#: Nats above the corpus's unigram entropy that count as far above it.
MARGIN_NATS = 1.0


@dataclass
class DivergenceWatch:
    """Hears every loss of a run in order and says when the run has diverged.

    A loss that is not finite: at once. With a ``line`` (nats), also when ``patience`` losses in a
    row were above it, provided that an earlier loss had been below it, or that all of them belong
    to the second half of the run: a slow start is no divergence.

    ``above`` and ``fell`` are the watch's state; a resumed run gets them back.
    """

    line: float | None
    patience: int
    slow_start: int
    above: int = 0
    fell: bool = False

    @classmethod
    def of(cls, protocol: Protocol, steps: int, unigram_nats: float | None) -> DivergenceWatch:
        """The watch that ``protocol`` asks for over ``steps``; patience is a twentieth of the run,
        never less than 20 steps."""
        wanted = protocol.divergence == "above_unigram" and unigram_nats is not None
        line = unigram_nats + MARGIN_NATS if wanted and unigram_nats is not None else None
        return cls(line, patience=max(20, steps // 20), slow_start=steps // 2)

    def diverged(self, step: int, loss: float) -> bool:
        """Whether the run ends with ``loss``, that of ``step`` (counted from 1)."""
        if not math.isfinite(loss):
            return True
        if self.line is None:
            return False
        if loss <= self.line:
            self.above, self.fell = 0, True
            return False
        self.above += 1
        earliest = self.patience if self.fell else self.slow_start + self.patience
        return self.above >= self.patience and step >= earliest
