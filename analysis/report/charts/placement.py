"""Where attention sits, beside how much of it there is."""

from __future__ import annotations

import math
from typing import Any

from analysis.figures import placement
from analysis.figures.placement import Placement, Spread
from analysis.figures.source import Source
from analysis.figures.style import SERIES
from analysis.inference import as_percent, percent
from analysis.report.blocks import Block, Chart, Words
from analysis.report.charts import drawing

#: How far apart, in shares of attention, the placements of one ratio are drawn.
STEP = 0.012
ONE_SEED = (
    "One seed a placement: what a seed alone changes is in these spans, and nothing here tells how much."
)


def blocks(source: Source, anchor: str) -> list[Block]:
    """Raises MissingError where the plan names no placements."""
    found = placement.data(source)
    return [
        Chart(
            f"{anchor}-placement",
            figure(found),
            f"Validation perplexity ({found.text}) by the place of attention, the placements of one ratio "
            "beside each other. A grey box spans them; the grey line joins their means.",
        ),
        *([Words((ONE_SEED,))] if found.seeds < 2 else []),
        Words(tuple(_said(spread) for spread in found.spreads)),
        Words((_against_ratio(found),)),
    ]


def _said(spread: Spread) -> str:
    return (
        f"At {spread.share:.0%} attention, {spread.count} placements span {spread.low:,.4g} to "
        f"{spread.high:,.4g}: {percent(as_percent(spread.nats))} % between the lowest and the highest mean"
        + (
            "."
            if spread.chance is None
            else f"; means of as many equally good ones would span {percent(as_percent(spread.chance))} % on "
            "average, by chance."
        )
    )


def _against_ratio(found: Placement) -> str:
    if len(found.spreads) < 2:
        return "One ratio only: what the ratio is worth cannot be set against the placement."
    effect = found.effect
    between = f" ({_percent(effect.low)} to {_percent(effect.high)})" if effect.low is not None else ""
    none = f", no interval: {effect.why}" if effect.low is None and effect.why else ""
    return (
        f"The ratio's effect, between the means over placements: {_percent(effect.nats)} %{between}{none}. "
        f"The placement's, at one ratio: up to {_percent(found.largest_spread)} %. Both are over the "
        "placements that every ratio has; highest and lowest were chosen after the runs, and "
        "a span of several means is wide by chance alone."
    )


def _percent(nats: float | None) -> str:
    return percent(as_percent(nats or 0.0))


def figure(found: Placement) -> Any:
    drawn = drawing.new("share of attention", f"validation perplexity ({found.text})", 500)
    everything = [point for points in found.points.values() for point in points]
    ceiling = drawing.fit_y(drawn, [*everything, *found.ends], ())
    half = max((_row(found, spread) for spread in found.spreads), default=0) * STEP
    for spread in found.spreads:
        sides = {"x0": spread.share - half, "x1": spread.share + half, "y0": spread.low, "y1": spread.high}
        drawn.add_shape(type="rect", **sides, fillcolor="#eef0f2", line={"width": 0}, layer="below")
    path = sorted(
        [
            *((point.x, point.y) for point in found.ends if point.ranked),
            *((spread.share, spread.mean) for spread in found.spreads),
        ]
    )
    drawn.add_scatter(
        name="mean of placements",
        x=[x for x, _ in path],
        y=[y for _, y in path],
        mode="lines",
        line={"color": "#d0d5da", "width": 3},
        hoverinfo="skip",
    )
    places = _places(found)
    for index, (kind, points) in enumerate(found.points.items()):
        colour, shape = SERIES[index % len(SERIES)]
        for leaky in (False, True):
            members = [point for point in points if point.leaky == leaky and math.isfinite(point.y)]
            if members:
                drawn.add_scatter(
                    name=drawing.text(f"{kind}, leaky" if leaky else kind),
                    x=[places[point.variant_hash] for point in members],
                    y=[point.y for point in members],
                    hovertext=[drawing.said(point) for point in members],
                    hovertemplate="%{hovertext}<extra></extra>",
                    mode="markers",
                    marker=drawing.mark(colour, shape, leaky),
                    error_y=drawing.errors([point.half for point in members]),
                )
    for point in found.ends:
        if math.isfinite(point.y):
            drawn.add_scatter(
                name=drawing.text(point.architecture),
                x=[point.x],
                y=[point.y],
                hovertext=[drawing.said(point)],
                hovertemplate="%{hovertext}<extra></extra>",
                mode="markers",
                marker=drawing.marker(point.family, point.leaky),
                error_y=drawing.errors([point.half]),
            )
    if any(point.diverged for point in everything):
        drawn.add_scatter(**drawing.gone(everything, ceiling))
    drawing.references(drawn, found.references)
    drawn.update_xaxes(range=[-0.06, 1.06], tickformat=".0%")
    return drawn


def _row(found: Placement, spread: Spread) -> float:
    at = sum(point.x == spread.share for points in found.points.values() for point in points)
    return (at + 1) / 2


def _places(found: Placement) -> dict[str, float]:
    """Where each variant is drawn: the placements of a ratio form a row around its share."""
    places: dict[str, float] = {}
    for part in {point.x for points in found.points.values() for point in points}:
        row = [p.variant_hash for points in found.points.values() for p in points if p.x == part]
        places |= {name: part + STEP * (place - (len(row) - 1) / 2) for place, name in enumerate(row)}
    return places
