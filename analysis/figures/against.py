"""Ratios against something that is varied beside them: model size, training context."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.aggregate import Line
from analysis.baseline import group_of
from analysis.figures import marks, style
from analysis.figures.changes import Change, compare, models
from analysis.figures.source import ENDS, FAMILIES, OTHERS, MissingError, Point, Source, is_number, point


@dataclass(frozen=True)
class Series:
    """One architecture over the varied quantity: its points, x rising, and beside each what it
    differs by from the Transformer at the same place (None where there is no single one)."""

    architecture: str
    family: str
    share: float | None
    points: tuple[Point, ...]
    changes: tuple[Change | None, ...]


@dataclass(frozen=True)
class Against:
    """``places`` are the values of ``column`` that the study has; x of the points is the value of
    ``axis``, which may differ between architectures at one place (parameters at one width)."""

    column: str
    axis: str
    series: tuple[Series, ...]
    places: tuple[int, ...]
    text: str


def against(source: Source, column: str, axis: str) -> Against:
    """Every architecture seen at two values of ``column`` or more. Raises MissingError."""
    lines = [
        line
        for line in source.lines
        if is_number(line.get("valid_ppl")) and is_number(line.get(column)) and is_number(line.get(axis))
    ]
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(str(line.get("architecture")), []).append(line)
    groups = {name: sorted(found, key=lambda line: line[column]) for name, found in groups.items()}
    several = {name: found for name, found in groups.items() if len({line[column] for line in found}) > 1}
    if not several:
        raise MissingError(f"no architecture was trained at two values of {column}")
    for name, found in several.items():
        if len({line[column] for line in found}) < len(found):
            labels = ", ".join(str(line["label"]) for line in found)
            raise MissingError(f"{name} stands more than once at one {column}: {labels}")
    fits = models(source)
    transformers = {line[column]: line for line in several.get("Transformer", [])}

    def change(line: Line) -> Change | None:
        base = transformers.get(line[column])
        return compare(*fits[group_of(line)], line, base) if base else None

    series = tuple(_series(found, axis, change) for found in several.values())
    places = tuple(sorted({line[column] for found in several.values() for line in found}))
    return Against(column, axis, tuple(sorted(series, key=_place)), places, source.text)


def _series(lines: Sequence[Line], axis: str, change: Callable[[Line], Change | None]) -> Series:
    points = tuple(point(line, line[axis]) for line in lines)
    first = points[0]
    return Series(
        first.architecture, first.family, first.share, points, tuple(change(line) for line in lines)
    )


def _place(series: Series) -> tuple[int, float]:
    return (*FAMILIES, OTHERS).index(series.family), series.share or 0.0


def draw(found: Against, label: str) -> Any:
    """Perplexities left; right, where there are Transformers, what each ratio differs from them by."""
    relative = any(change and change.nats is not None for series in found.series for change in series.changes)
    figure, grid = style.new(4.3 * (1 + relative), 4.1, 1, 1 + relative, sharex=True)
    left = grid[0, 0]
    ceiling = marks.set_limits(left, [p for series in found.series for p in series.points])
    for index, series in enumerate(found.series):
        _left(left, series, ceiling, style.DASHES[index % len(style.DASHES)])
    left.set_ylabel(f"validation perplexity ({found.text})")
    if relative:
        right = grid[0, 1]
        for index, series in enumerate(found.series):
            _right(right, series, index, len(found.series))
        right.set_ylim(*_range(found))
        right.axhline(0, color="0.3", linewidth=0.8)
        right.set_ylabel("NLL minus the Transformer's, nats a token")
    for axis in grid[0]:
        _log_x(axis, found)
        axis.set_xlabel(label)
    style.legend(figure, [left])
    return figure


def _look(series: Series) -> dict[str, Any]:
    colour, marker, _ = style.FAMILY[series.family]
    if series.family not in ENDS:
        colour = style.share_colour(series.share)
    return {"color": colour, "marker": marker, "markersize": 8 if marker in "*P" else 5}


def _left(axis: Any, series: Series, ceiling: float, dash: Any) -> None:
    leaky = any(p.leaky for p in series.points)
    axis.errorbar(
        [p.x for p in series.points],
        [min(p.y, ceiling) for p in series.points],
        yerr=[p.half or 0.0 for p in series.points] if any(p.half for p in series.points) else None,
        linestyle=dash,
        elinewidth=0.8,
        markerfacecolor="white" if leaky else None,
        **_look(series),
    )
    style.key(axis, series.architecture, **(_look(series) | {"linestyle": dash}))
    if leaky:
        style.key_leaky(axis)
    gone = [p for p in series.points if p.diverged]
    if gone:
        xs, ys = [p.x for p in gone], [min(p.y, ceiling) for p in gone]
        axis.plot(xs, ys, "x", color="0.1", markersize=8, clip_on=False)
        style.key_diverged(axis)


def _right(axis: Any, series: Series, index: int, count: int) -> None:
    if series.family == "Transformer":
        return
    found = [
        (p.x, change)
        for p, change in zip(series.points, series.changes, strict=True)
        if change and change.nats is not None and math.isfinite(change.nats)
    ]
    if not found:
        return
    values = [change.nats or 0.0 for _, change in found]
    ends = [
        (value - change.low, change.high - value)
        if change.low is not None and change.high is not None
        else (0.0, 0.0)
        for value, (_, change) in zip(values, found, strict=True)
    ]
    axis.errorbar(
        [x for x, _ in found],
        values,
        yerr=list(zip(*ends, strict=True)) if any(map(any, ends)) else None,
        linestyle=style.DASHES[index % len(style.DASHES)],
        elinewidth=0.8,
        transform=marks.aside(axis, 2.5 * (index - (count - 1) / 2)),
        **_look(series),
    )


def _range(found: Against) -> tuple[float, float]:
    """What the differences and their intervals span: points drawn aside do not widen an axis."""
    changes = [change for series in found.series for change in series.changes if change]
    ends = [end for change in changes for end in (change.nats, change.low, change.high)]
    finite = [end for end in ends if end is not None and math.isfinite(end)] + [0.0]
    margin = 0.05 * ((max(finite) - min(finite)) or 1.0)
    return min(finite) - margin, max(finite) + margin


def _log_x(axis: Any, found: Against) -> None:
    xs = [p.x for series in found.series for p in series.points]
    axis.set_xlim(min(xs) / 1.15, max(xs) * 1.15)
    style.plain_log(axis, "x")
    if found.axis == found.column:
        style.ticks_as_numbers(axis, [float(place) for place in found.places])
