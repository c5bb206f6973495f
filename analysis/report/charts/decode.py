"""What a generated token costs, and what is kept for it, against context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from analysis.figures import decode
from analysis.figures.decode import TITLES, Cost, Decode
from analysis.figures.source import Source
from analysis.report.blocks import Block, Chart, grid
from analysis.report.charts import drawing

AXES = {"macs": "MACs a token", "state": "bytes a sequence"}


def blocks(source: Source, anchor: str) -> list[Block]:
    """A chart a quantity, and the crossings. Raises MissingError without two counted contexts."""
    found = decode.data(source)
    width = f" Counted at d_model {found.d_model:,}: a crossing belongs to a width." if found.d_model else ""
    charts: list[Block] = [
        Chart(
            f"{anchor}-{quantity}",
            figure(quantity, decode.shown(costs)),
            f"{TITLES[quantity][0].upper()}{TITLES[quantity][1:]}, against context. Points are counts; a "
            f"dotted vertical is where a model begins to cost less than the Transformer.{width}",
        )
        for quantity, costs in found.costs.items()
    ]
    heads = [f"{TITLES[quantity]}: less than the Transformer" for quantity in found.costs]
    table = [[", ".join(names), *cells] for cells, names in _crossings(found).items()]
    return [*charts, *([grid(f"{anchor}-crossings", ["model", *heads], table, wide=True)] if table else [])]


def _crossings(found: Decode) -> dict[tuple[str, ...], list[str]]:
    """What is said of each quantity -> the models of which it is said."""
    said: dict[tuple[str, ...], list[str]] = {}
    for cost in found.costs["macs"]:
        cells = tuple(_crossing(costs, cost.label) for costs in found.costs.values())
        if cost.family != "Transformer" and any(cells):
            said.setdefault(cells, []).append(cost.label)
    return said


def _crossing(costs: Sequence[Cost], label: str) -> str:
    """ "from a context of 480 on, where the exact straight lines cross", or why there is none."""
    for cost in costs:
        if cost.label == label:
            return f"from a context of {cost.crossover:,.4g} on, {cost.how}" if cost.crossover else cost.how
    return ""


def figure(quantity: str, costs: Sequence[Cost]) -> Any:
    drawn = drawing.new("context, tokens", AXES[quantity], 420)
    ticks = sorted({n for cost in costs for n in cost.values})
    crossings = sorted({round(cost.crossover, 1) for cost in costs if cost.crossover})
    left = min([*ticks, *(0.7 * crossing for crossing in crossings)])
    for index, cost in enumerate(costs):
        along = dense([left, *cost.values]) if cost.linear else [float(n) for n in cost.values]
        drawing.curve(
            drawn,
            cost.label,
            drawing.looks(*drawing.colour_and_shape(cost.family, cost.share), index),
            line=(along, [_at(cost, n) for n in along]),
            points=(list(cost.values), list(cost.values.values())),
            tip=f"context %{{x:,}}: %{{y:,}} {AXES[quantity]}",
        )
    for crossing in crossings:
        drawn.add_vline(x=crossing, line={"color": drawing.GREY, "width": 1, "dash": "dot"})
        drawn.add_annotation(  # add_vline would put its own words at 10^crossing on a log axis
            x=math.log10(crossing),
            y=1,
            yref="paper",
            yanchor="top",
            xanchor="left",
            text=f"{crossing:,g}",
            font={"size": 11, "color": drawing.GREY},
            showarrow=False,
        )
    drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{n:,}" for n in ticks])
    drawn.update_yaxes(type="log", tickformat="~s", exponentformat="SI", dtick="D2")
    return drawn


def dense(xs: Sequence[float], steps: int = 40) -> list[float]:
    """Points evenly spread on a log axis: a straight line is a curve on it."""
    low, high = min(xs), max(xs)
    return [low * (high / low) ** (step / steps) for step in range(steps + 1)]


def _at(cost: Cost, n: float) -> float:
    return float(cost.linear[0] + cost.linear[1] * Fraction(n)) if cost.linear else float(cost.values[int(n)])
