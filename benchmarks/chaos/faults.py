"""What goes wrong, and when: a plan drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "kill-worker",
    "term-worker",
    "stop-worker",
    "kill-parent",
    "term-parent",
    "stop-parent",
    "restart-server",
    "crash-server",
    "cut-sessions",
    "full-disk",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_THE_SERVER = ("restart-server", "crash-server", "cut-sessions")

#: Times of the pause between two faults, of the grace (a stop is longer than it; a server is away for
#: less as for more than it, a disk is full about as long), and seconds until a parent comes back.
GAP, STOPPED, AWAY, FULL, ABSENT = (0.4, 1.6), (1.25, 2.5), (0.1, 1.5), (0.5, 1.5), (0.0, 3.0)
#: How often a parent that was killed comes back as another machine, with another name and empty folder.
REPLACED = 1 / 3


@dataclass(frozen=True)
class Fault:
    """``gap`` seconds after the one before; ``pick`` in [0, 1) chooses among those that it can hit.
    ``seconds``: how long it lasts (a stop, an absence, a full disk). ``fresh``: the parent that it ends
    is replaced by another machine's."""

    kind: Kind
    gap: float
    pick: float
    seconds: float
    fresh: bool


def plan(faults: int, kinds: Sequence[Kind], seed: int, pace: float, grace: float) -> list[Fault]:
    """``faults`` in a random order in which every one of ``kinds`` is as frequent as any other, ``pace``
    seconds apart on average."""
    chance = random.Random(seed)
    found: list[Fault] = []
    while len(found) < faults:
        for kind in chance.sample(kinds, len(kinds)):
            seconds = chance.uniform(*ABSENT)
            if kind.startswith("stop"):
                seconds = grace * chance.uniform(*STOPPED)
            elif kind in OF_THE_SERVER:
                seconds = grace * chance.uniform(*AWAY)
            elif kind == "full-disk":
                seconds = grace * chance.uniform(*FULL)
            gap, pick = pace * chance.uniform(*GAP), chance.random()
            found.append(Fault(kind, gap, pick, seconds, chance.random() < REPLACED))
    return found[:faults]
