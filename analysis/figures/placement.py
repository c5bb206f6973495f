"""Where attention sits, beside how much of it there is: the spread of one against the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from analysis.figures import marks, style
from analysis.figures.changes import Change, estimated, models
from analysis.figures.source import (
    ENDS,
    MissingError,
    Point,
    Reference,
    Source,
    is_number,
    point,
    references,
    share,
)
from analysis.inference import Model, NoInference

SAID = "placement"


@dataclass(frozen=True)
class Spread:
    """The placements of one share of attention: lowest, mean and highest perplexity, of means over
    seeds; ``nats`` is the distance from lowest to highest. Only of what may be compared, and of the
    placements that every share has. ``chance``: the distance (nats) that means of so many equally
    good placements would span on average; None where one seed leaves it unknown."""

    share: float
    low: float
    mean: float
    high: float
    count: int
    chance: float | None = None

    @property
    def nats(self) -> float:
        return math.log(self.high / self.low)


@dataclass(frozen=True)
class Placement:
    """``points`` by kind of placement, in the plan's order; ``ends``: Transformer and RetNet.
    ``effect`` is the distance between the means over placements of the worst and the best share,
    ``seeds`` the fewest runs behind a point that is compared."""

    points: dict[str, tuple[Point, ...]]
    ends: tuple[Point, ...]
    spreads: tuple[Spread, ...]
    text: str
    effect: Change
    seeds: int
    references: tuple[Reference, ...] = ()

    @property
    def largest_spread(self) -> float:
        """The largest distance between two placements of one share, in nats."""
        return max(spread.nats for spread in self.spreads)

    @property
    def ratio_effect(self) -> float:
        """The distance, in nats, between the highest and the lowest mean over placements."""
        return self.effect.nats or 0.0


def data(source: Source) -> Placement:
    """The members that the plan calls by a placement. Raises MissingError without them."""
    if source.plan is None or not any(SAID in member.said for member in source.plan.members):
        raise MissingError("its plan.json names no placements (+sweep=placement does)")
    lines = {line["variant_hash"]: line for line in source.lines if is_number(line.get("valid_ppl"))}
    points: dict[str, list[Point]] = {}
    for member in source.plan.members:
        line = lines.get(member.variant_hash)
        part = share(line) if line else None
        if SAID in member.said and line and part is not None:
            points.setdefault(member.said[SAID], []).append(point(line, part))
    compared = _balanced(points)
    model, why = _fitted(source)
    spreads = _spreads(compared, model)
    if not spreads:
        raise MissingError("no ratio has two placements with a validation perplexity yet")
    ends = [point(line, part) for line in lines.values() if (part := share(line)) in (0.0, 1.0)]
    return Placement(
        {kind: tuple(found) for kind, found in points.items()},
        tuple(p for p in ends if p.family in ENDS),
        spreads,
        source.text,
        _effect(compared, spreads, model, why),
        min(p.n for found in compared.values() for p in found),
        references(source),
    )


def _balanced(points: dict[str, list[Point]]) -> dict[float, list[Point]]:
    """By share, what may be compared, with as many points of each kind at every share as the share
    with the fewest has: a placement that one share alone has would stand for its ratio. Shares with
    fewer than two points have no part."""
    ranked = {kind: [p for p in found if p.ranked] for kind, found in points.items()}
    every = [p for found in ranked.values() for p in found]
    shares = [part for part in sorted({p.x for p in every}) if sum(p.x == part for p in every) > 1]
    found: dict[float, list[Point]] = {part: [] for part in shares}
    for members in ranked.values():
        own = {part: [p for p in members if p.x == part] for part in shares}
        fewest = min((len(at) for at in own.values()), default=0)
        for part, at in own.items():
            found[part] += at[:fewest]
    return {part: at for part, at in found.items() if len(at) > 1}


def _fitted(source: Source) -> tuple[Model | None, str]:
    """The fit of the group that the placements are in; they share sizes, or are not compared here."""
    fits = list(models(source).values())
    return fits[0] if len(fits) == 1 else (None, "the placements are of several sizes or protocols")


def _spreads(compared: dict[float, list[Point]], model: Model | None) -> tuple[Spread, ...]:
    found = []
    for part, points in compared.items():
        values = sorted(p.y for p in points)
        mean = math.exp(math.fsum(map(math.log, values)) / len(values))
        chance = None
        if model is not None:
            error = model.residual_sd / math.sqrt(min(p.n for p in points))
            chance = _expected_range(len(values)) * error
        found.append(Spread(part, values[0], mean, values[-1], len(values), chance))
    return tuple(found)


def _expected_range(count: int) -> float:
    """Mean distance between the largest and the smallest of ``count`` standard normal numbers:
    the integral of 1 - F^count - (1 - F)^count (Tippett 1925), by the trapezoid rule."""
    step = 0.01
    below = [NormalDist().cdf(step * place) for place in range(-800, 801)]
    return step * math.fsum(1 - part**count - (1 - part) ** count for part in below)


def _effect(
    compared: dict[float, list[Point]], spreads: Sequence[Spread], model: Model | None, why: str
) -> Change:
    """The share with the highest mean minus the one with the lowest, each the mean of its points."""
    high, low = (choose(spreads, key=lambda spread: spread.mean).share for choose in (max, min))
    if high == low:
        return Change(0.0, why="one ratio only")
    sides = [{p.variant_hash: 1 / len(compared[part]) for p in compared[part]} for part in (high, low)]
    if model is not None:
        try:
            return estimated(model.difference(*sides))
        except NoInference as none:
            why = str(none)
    means = {spread.share: math.log(spread.mean) for spread in spreads}
    return Change(means[high] - means[low], why=why)


def draw(found: Placement) -> Any:
    """The placements of a ratio stand beside each other, in the order of the legend."""
    figure, grid = style.new(6.4, 4.2)
    axis = grid[0, 0]
    everything = [p for points in found.points.values() for p in points]
    ceiling = marks.set_limits(axis, [*everything, *found.ends])
    axis.set_xlim(-0.06, 1.06)
    path = sorted(
        [
            *((p.x, p.y) for p in found.ends if p.ranked),
            *((spread.share, spread.mean) for spread in found.spreads),
        ]
    )
    axis.plot(
        *zip(*path, strict=True), color=style.FAINT, linewidth=2.5, zorder=1, label="mean of placements"
    )
    for spread in found.spreads:
        axis.fill_between(
            [spread.share - 0.055, spread.share + 0.055],
            spread.low,
            spread.high,
            color="0.9",
            linewidth=0,
            zorder=0,
        )
    shifts = _shifts(found)
    for index, (kind, points) in enumerate(found.points.items()):
        colour, marker = style.SERIES[index % len(style.SERIES)]
        for p in points:
            _mark(axis, p, ceiling, shifts[p.variant_hash], colour, marker, kind)
    for end in found.ends:
        _mark(axis, end, ceiling, 0.0, style.GREY, style.FAMILY[end.family][1], end.family)
    axis.set_xlabel("share of attention: attention heads / heads")
    axis.set_ylabel(f"validation perplexity ({found.text})")
    marks.references(axis, found.references)
    axis.set_title(_title(found))
    style.legend(figure, [axis])
    return figure


def _title(found: Placement) -> str:
    seed = "one seed; " if found.seeds < 2 else ""
    words = f"{seed}placement: up to {100 * math.expm1(found.largest_spread):.1f} % between two of one ratio"
    if len(found.spreads) < 2:
        return words
    return f"{words}; ratio: {100 * math.expm1(found.ratio_effect):.1f} % between means"


def _mark(axis: Any, p: Point, ceiling: float, shift: float, colour: str, marker: str, kind: str) -> None:
    size = 9 if marker in "*P" else 5
    style.key(axis, kind, marker, colour, markersize=size)
    if math.isfinite(p.y):
        axis.errorbar(
            [p.x],
            [p.y],
            yerr=[p.half] if p.half else None,
            color=colour,
            marker=marker,
            markersize=size,
            markerfacecolor="white" if p.leaky else colour,
            elinewidth=0.8,
            transform=marks.aside(axis, shift),
        )
    if p.leaky:
        style.key_leaky(axis)
    if p.diverged:
        where = [p.x], [min(p.y, ceiling)]
        axis.plot(*where, "x", color=colour, markersize=8, clip_on=False, transform=marks.aside(axis, shift))
        style.key_diverged(axis)


def _shifts(found: Placement) -> dict[str, float]:
    """How far aside (points) each variant is drawn, so that the placements of a ratio form a row."""
    shifts: dict[str, float] = {}
    for part in {p.x for points in found.points.values() for p in points}:
        row = [p.variant_hash for points in found.points.values() for p in points if p.x == part]
        shifts |= {name: 5.0 * (place - (len(row) - 1) / 2) for place, name in enumerate(row)}
    return shifts
