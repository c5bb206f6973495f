"""What a set of models is worth as a whole: the part of a box of objectives that it dominates.

Objectives are minimised and positive (perplexities, MACs, bytes, milliseconds), and are compared by ratios,
in logarithms: a tenth less counts the same at either end of an axis, and the unit of a column nothing. The
hypervolume grows whenever a front moves anywhere, and no front is below one that it dominates (Zitzler and
Thiele, 1998). moocore computes it, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.rows import TableError

#: One value an objective.
Point = tuple[float, ...]
OBJECTIVES = (2, 3)
#: How far beyond the worst value the reference point lies, in ranges of an objective: at the worst value
#: itself the ends of a front, which are the worst in something, would count for nothing.
BEYOND = 0.1


@dataclass(frozen=True)
class Box:
    """From ``best``, the best value of every objective by itself, to a tenth of the way from there to
    ``worst`` beyond ``worst``. What is to be compared is measured in one box."""

    best: Point
    worst: Point

    def share(self, points: Sequence[Point]) -> float:
        """The part of the box that ``points`` dominate, from 0 (none) to 1. What has no finite value, or
        lies outside of the box, adds nothing."""
        scaled = [self._scaled(point) for point in points if is_measurable(point)]
        if not scaled:
            return 0.0
        side = 1 + BEYOND
        whole = side ** len(self.best)
        return float(_moocore().hypervolume(scaled, ref=[side] * len(self.best)) / whole)

    def _scaled(self, point: Point) -> list[float]:
        """0 at the best value, 1 at the worst; an objective in which nothing differs is 0."""
        return [
            math.log(value / best) / math.log(worst / best) if worst > best else 0.0
            for value, best, worst in zip(point, self.best, self.worst, strict=True)
        ]


def box(points: Sequence[Point]) -> Box:
    """The box of everything that is to be compared. Raises TableError if no point can be measured."""
    known = [point for point in points if is_measurable(point)]
    if not known:
        raise TableError("no model has a finite value above 0 in every objective: there is no front")
    axes = list(zip(*known, strict=True))
    return Box(tuple(min(axis) for axis in axes), tuple(max(axis) for axis in axes))


def nondominated(points: Sequence[Point]) -> list[bool]:
    """Which of ``points`` no other is as good as everywhere and better somewhere. Of equal ones the first
    alone; none that cannot be measured."""
    known = [place for place, point in enumerate(points) if is_measurable(point)]
    found = [False] * len(points)
    if known:
        kept = _moocore().is_nondominated([points[place] for place in known])
        for place, on_front in zip(known, kept, strict=True):
            found[place] = bool(on_front)
    return found


def is_measurable(point: Point) -> bool:
    return all(math.isfinite(value) and value > 0 for value in point)


def _moocore() -> Any:
    try:
        import moocore
    except ImportError as error:
        raise TableError("a front needs moocore: pip install 'retsweep[report]'") from error
    return moocore
