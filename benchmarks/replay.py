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
    """Of one replay: ``order`` of what is still to be proposed, ``due`` to be trained on, and what is known
    of all that was begun, in the order of the proposals."""

    order: list[Candidate]
    buckets: Mapping[str, int]
    rungs: Sequence[int]
    eta: int
    begun: dict[str, Candidate] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    results: dict[str, dict[int, float]] = field(default_factory=dict)
    due: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)

    def next(self) -> Candidate | None:
        """What a free worker takes: a promoted run before a new proposal, the one that was proposed first;
        None if it has to wait, or all is done. With no proposal left and nobody at work the best of each
        rung goes on: no bucket ends without a whole run."""
        self._promote(closing=False)
        if not self.due and self.order:
            new = self.order.pop(0)
            self.begun[new.key] = new
            self.due.add(new.key)
        if not self.due and not self.running:
            self._promote(closing=True)
        found = next((one for key, one in self.begun.items() if key in self.due), None)
        if found is not None:
            self.due.remove(found.key)
            self.running.add(found.key)
        return found

    def _promote(self, *, closing: bool) -> None:
        if self.rungs:
            named = promotions(self.results, self.buckets, self.rungs, self.eta, closing=closing)
            self.due |= set(named) - self.running

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
