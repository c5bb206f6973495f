"""What a search is, and how it stands: its plan, and a look at its proposals and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retsweep.search.proposals import Proposal
from retsweep.search.settings import Search
from retsweep.search.space import Architectures
from retsweep.sweep.study import Entry


@dataclass(frozen=True)
class Plan:
    """What a search is, all of it plain: the same in every process.

    ``base`` are the overrides that the command gave for the run, ``steps`` those of a whole run, ``rungs``
    the stops before (none: no halving), ``edges`` the MACs between buckets, ``limits`` the hard budgets,
    ``measured_on`` the hardware that latencies are of, where some are objectives.
    """

    search: Search
    base: tuple[str, ...]
    space: Architectures
    steps: int
    rungs: tuple[int, ...]
    edges: tuple[float, ...]
    limits: Mapping[str, float]
    retries: int
    measured_on: str | None = None

    def bucket(self, macs: float) -> int:
        return sum(macs > edge for edge in self.edges)

    def after(self, steps: int) -> int | None:
        """The stop after the one at ``steps``; None: the end."""
        return next((rung for rung in self.rungs if rung > steps), None)


@dataclass
class Standing:
    """A look at a search: its proposals, and how the run of each hash stands in the ledger."""

    proposals: list[Proposal]
    entries: dict[str, Entry]
    retries: int
    counted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.counted = {one.hash for one in self.proposals if one.counts and one.hash}

    def spent(self) -> int:
        """Architectures that cost a run of this search: a row that was there before costs none."""
        return sum(key not in self.entries or bool(self.entries[key].overrides) for key in self.counted)

    def waiting(self) -> int:
        return sum(entry.state == "waiting" for entry in self.entries.values())

    def under_way(self) -> bool:
        """Whether some run will still say something without being promoted."""
        return any(
            entry.state in ("waiting", "running")
            or (entry.state == "lost" and not entry.given_up(self.retries))
            for entry in self.entries.values()
        )


def dull(proposals: list[Proposal]) -> int:
    """How many of the last proposals cost nothing: infeasible, or known already."""
    count = 0
    for one in reversed(proposals):
        if one.source is not None and not one.known:
            continue  # told from another study, not proposed
        if not (one.known or one.infeasible is not None):
            return count
        count += 1
    return count
