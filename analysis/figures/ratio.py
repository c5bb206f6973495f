"""The share of attention against perplexity, a series per layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from analysis.figures import marks, style
from analysis.figures.source import (
    FAMILIES,
    NAMESAKES,
    OTHERS,
    MissingError,
    Point,
    Reference,
    Source,
    point,
    references,
    repeated,
    share,
)

#: Layouts whose ends are the Transformer and the RetNet themselves: k layers of attention, k = 0
#: and all. A hybrid layer without attention heads is no retention layer, so Type C has no ends.
WITH_ENDS = ("Type A", "Type B")


@dataclass(frozen=True)
class Ratio:
    """``series``: the points of each family, x the share of attention, rising."""

    series: dict[str, tuple[Point, ...]]
    references: tuple[Reference, ...]
    text: str

    @property
    def points(self) -> tuple[Point, ...]:
        """All points of all families."""
        return tuple(point for points in self.series.values() for point in points)


def data(source: Source) -> Ratio:
    """Every line with a share of attention. Raises MissingError without two different shares."""
    points = [point(line, part) for line in source.trained() if (part := share(line)) is not None]
    if len({point.x for point in points}) < 2:
        raise MissingError("its models do not differ in their share of attention")
    if repeated(source.lines):
        raise MissingError(NAMESAKES)
    by_family = {
        name: tuple(sorted((p for p in points if p.family == name), key=lambda p: p.x))
        for name in (*FAMILIES, OTHERS)
    }
    return Ratio({name: found for name, found in by_family.items() if found}, references(source), source.text)


def draw(found: Ratio) -> Any:
    """One panel; the families stand a hair beside each other, so that intervals can be told apart."""
    figure, grid = style.new(5.2, 4.0)
    axis = grid[0, 0]
    ceiling = marks.set_limits(axis, found.points, found.references, causal=True)
    for name, points in found.series.items():
        shift = {"Type A": -1.5, "Type B": 1.5}.get(name, 0.0)
        path = sorted([*_ends(found, name), *points], key=lambda point: point.x)
        path = [point for point in path if point.ranked]
        if name in (*WITH_ENDS, "Type C"):
            colour, _, dash = style.FAMILY[name]
            axis.plot([p.x for p in path], [p.y for p in path], color=colour, linestyle=dash, linewidth=0.9)
        marks.points(axis, points, ceiling, shift=shift)
    marks.causal(axis, found.points)
    marks.references(axis, found.references)
    axis.set_xlim(-0.04, 1.04)
    axis.set_xlabel("share of attention: attention heads / heads")
    axis.set_ylabel(f"validation perplexity ({found.text})")
    style.legend(figure, [axis])
    return figure


def _ends(found: Ratio, name: str) -> list[Point]:
    """The RetNet and the Transformer, where the layout ends in them and there is one of each."""
    ends = [found.series.get(family, ()) for family in ("RetNet", "Transformer")]
    return [end[0] for end in ends if len(end) == 1 and math.isfinite(end[0].y)] if name in WITH_ENDS else []
