"""What a search shows while it runs: what a sweep does, with an end that is no list of runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console

from retsweep.sweep.progress import Screen, clock
from retsweep.sweep.study import Entry


class SearchScreen(Screen):
    """``trials`` and ``steps`` are the search's ends, ``trained`` the steps that its runs were promised."""

    def __init__(
        self,
        console: Console,
        labels: Mapping[str, str],
        trials: int | None,
        steps: int | None,
        trained: Callable[[Mapping[str, Entry]], int],
    ) -> None:
        super().__init__(console, labels)
        self._trials, self._steps, self._trained = trials, steps, trained
        self._began = time.monotonic()
        self._first: float | None = None

    def _share(self, standing: Mapping[str, Entry]) -> float:
        """Of the end that is nearest."""
        ended = sum(entry.state not in ("waiting", "running") for entry in standing.values())
        trials = ended / self._trials if self._trials else 0.0
        steps = self._trained(standing) / self._steps if self._steps else 0.0
        return min(1.0, max(trials, steps))

    def _standing_line(self, standing: Mapping[str, Entry]) -> str:
        states = [entry.state for entry in standing.values()]
        of = f" of {self._trials}" if self._trials else ""
        steps = f" of {self._steps}" if self._steps else ""
        left = self._seconds_left(self._share(standing))
        about = f", about {clock(left)} left" if left is not None else ""
        return (
            f"{len(states)}{of} architectures: {states.count('complete') + states.count('failed')} finished, "
            f"{states.count('paused')} paused, {states.count('running')} running; "
            f"{self._trained(standing)}{steps} steps{about}"
        )

    def _seconds_left(self, share: float) -> float | None:
        """By the pace of this command; None before there is one."""
        self._first = share if self._first is None else self._first
        gained = share - self._first
        return (time.monotonic() - self._began) * (1 - share) / gained if gained > 0 else None
