"""What a search would have trained of a list of proposals, with successive halving and without.

A rung is a prefix of a run, so recorded curves say exactly what it would have seen. Only the order in which
runs end is modelled: every worker trains one run at a time, and a step takes as long as the run has MACs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.candidates import Candidate
from retsweep.search.halving import promotions


@dataclass(frozen=True)
class Ended:
    """A whole run that ended: ``trained`` are the steps of all workers by then, also those of runs that
    stopped at a rung."""

    trained: int
    candidate: Candidate


@dataclass
class _Search:
    """Of one replay: ``order`` of what is still to be proposed, what is known of the others."""

    order: list[Candidate]
    buckets: Mapping[str, int]
    rungs: Sequence[int]
    eta: int
    known: dict[str, Candidate] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    results: dict[str, dict[int, float]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def next(self) -> Candidate | None:
        """What a free worker takes: a promotion before a new proposal; None if it has to wait, or all is
        done. With no proposal left and nobody at work the best of each rung goes on: no bucket ends
        without a whole run."""
        found = self._promoted(closing=False)
        if found is None and self.order:
            found = self.order.pop(0)
        if found is None and not self.running:
            found = self._promoted(closing=True)
        if found is not None:
            self.known[found.key] = found
            self.running.add(found.key)
        return found

    def _promoted(self, *, closing: bool) -> Candidate | None:
        if not self.rungs:
            return None
        named = promotions(self.results, self.buckets, self.rungs, self.eta, closing=closing)
        return next((self.known[key] for key in named if key not in self.running), None)

    def target(self, one: Candidate) -> int:
        """The steps at which it is looked at next, or at which it ended by diverging."""
        done = self.reached.get(one.key, 0)
        return min([steps for steps in self.rungs if steps > done] + [one.steps])

    def arrive(self, one: Candidate) -> tuple[int, bool]:
        """The steps that it was trained for since the last time, and whether it is over."""
        steps, before = self.target(one), self.reached.get(one.key, 0)
        ended = steps >= one.steps
        self.reached[one.key] = steps
        self.running.remove(one.key)
        seen = self.results.setdefault(one.key, {})
        if ended and one.values is None:  # on the way there: it counts at the rung that it was to reach
            seen[min([rung for rung in self.rungs if rung > before], default=steps)] = math.inf
        else:
            seen[steps] = one.curve.get(steps, math.inf)
        return steps - before, ended


def replay(
    order: Sequence[Candidate],
    buckets: Mapping[str, int],
    rungs: Sequence[int],
    eta: int,
    workers: int,
) -> tuple[list[Ended], int]:
    """The whole runs in the order in which they end, and the steps trained in all. ``rungs`` are steps,
    ascending, below a whole run's; without any nothing is halved."""
    search = _Search(list(order), buckets, rungs, eta)
    found: list[Ended] = []
    trained = 0
    for one in _arrivals(search, workers):
        steps, over = search.arrive(one)
        trained += steps
        if over:
            found.append(Ended(trained, one))
    return found, trained


def _arrivals(search: _Search, workers: int) -> Iterator[Candidate]:
    """Runs as they come to a rung or to their end. Whoever is idle looks for work at every arrival."""
    busy: list[tuple[float, int, Candidate]] = []
    now, number = 0.0, 0
    while True:
        while len(busy) < workers and (one := search.next()) is not None:
            number += 1
            steps = search.target(one) - search.reached.get(one.key, 0)
            heapq.heappush(busy, (now + steps * one.macs, number, one))
        if not busy:
            return
        now, _, one = heapq.heappop(busy)
        yield one
