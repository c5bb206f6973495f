"""How long it takes until every run that a fault hit makes progress again, from outside: by the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.faults import Kind
from retsweep.sweep.study import Entry

#: After these the run must be somebody else's, or over; after others it is enough that it goes on.
TAKES_AWAY = ("kill", "term")


@dataclass
class Hit:
    """A fault in the eyes of the ledger: ``at`` which time, on which runs. ``before`` is how they stood when
    it could first be asked ``since`` then."""

    kind: Kind
    at: float
    runs: Collection[str]
    since: Callable[[], bool]
    before: dict[str, Entry] | None = None
    recovered: float | None = None
    """Seconds; None: not yet."""
    queued: bool = False
    """Whether its runs are in good hands: what has not gone on yet waits for its turn."""


@dataclass
class Watch:
    """Hears of faults and of how the study stands."""

    hits: list[Hit] = field(default_factory=list)

    def hit(
        self, kind: Kind, now: float, runs: Collection[str], since: Callable[[], bool] = lambda: True
    ) -> None:
        """``since``: whether the fault's own end has come (a server is there again)."""
        self.hits.append(Hit(kind, now, runs, since))

    def see(self, standing: Mapping[str, Entry], now: float) -> None:
        for hit in self.hits:
            if hit.recovered is not None or not hit.since():
                continue
            if hit.before is None:
                hit.before = {key: standing[key] for key in hit.runs if key in standing}
            behind = [key for key, one in hit.before.items() if not _moved(hit.kind, one, standing[key])]
            hit.queued = all(standing[key].state == "waiting" for key in behind)
            if not behind:
                hit.recovered = now - hit.at

    @property
    def open(self) -> int:
        """Faults of which a run has not gone on yet."""
        return sum(hit.recovered is None for hit in self.hits)

    @property
    def felt(self) -> int:
        """Those of them of which a run does not even wait for a worker."""
        return sum(hit.recovered is None and not hit.queued for hit in self.hits)

    def seconds(self, kind: Kind | None = None) -> list[float]:
        """Of the faults (of one kind) that hit a run, sorted."""
        return sorted(
            hit.recovered
            for hit in self.hits
            if hit.runs and hit.recovered is not None and kind in (None, hit.kind)
        )


def _moved(kind: Kind, before: Entry, now: Entry) -> bool:
    if now.state in ("complete", "failed", "paused"):
        return True
    if now.state != "running" or now.worker is None:
        return False
    if kind.startswith(TAKES_AWAY):
        return (now.trial, now.worker) != (before.trial, before.worker)
    return (now.trial, now.worker, now.steps) != (before.trial, before.worker, before.steps)


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted ``values``: the smallest that at least such a ``share`` of them does not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan
