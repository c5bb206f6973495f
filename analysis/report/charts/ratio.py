"""Perplexity against the share of attention, a series per layout."""

from __future__ import annotations

import math
from typing import Any

from analysis.figures import ratio
from analysis.figures.ratio import WITH_ENDS, Ratio
from analysis.figures.source import Point, Source
from analysis.figures.style import FAMILY
from analysis.report.blocks import Block, Chart
from analysis.report.charts import drawing

DASH = {"Type A": "solid", "Type B": "dash", "Type C": "dot"}


def blocks(source: Source, anchor: str) -> list[Block]:
    """Raises MissingError where models do not differ in their share of attention."""
    found = ratio.data(source)
    return [
        Chart(
            f"{anchor}-ratio",
            figure(found),
            f"Validation perplexity ({found.text}) against attention's share of the heads, over the network. "
            "Type A has attention nearest the embedding, Type B nearest the output; both end in the RetNet "
            "and the Transformer. In Type C every layer holds both. Lines join the means. Hollow points see "
            "the future (leaky): no likelihood; dots are the same weights under a causal mask.",
        )
    ]


def figure(found: Ratio) -> Any:
    drawn = drawing.new("share of attention", f"validation perplexity ({found.text})")
    ceiling = drawing.fit_y(drawn, found.points, found.references, causal=True)
    for family in DASH:
        if family in found.series:
            path = sorted([*_ends(found, family), *found.series[family]], key=lambda point: point.x)
            path = [point for point in path if point.ranked]
            line = {"color": FAMILY[family][0], "width": 1.2, "dash": DASH[family]}
            x, y = [point.x for point in path], [point.y for point in path]
            drawn.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    for family, points in found.series.items():
        for leaky in (False, True):
            members = [point for point in points if point.leaky == leaky and math.isfinite(point.y)]
            if members:
                drawn.add_scatter(
                    name=f"{family}, leaky" if leaky else family,
                    x=[point.x for point in members],
                    y=[point.y for point in members],
                    hovertext=[drawing.said(point) for point in members],
                    hovertemplate="%{hovertext}<br>%{x:.0%} attention<extra></extra>",
                    mode="markers",
                    marker=drawing.marker(family, leaky),
                    error_y=drawing.errors([point.half for point in members]),
                )
    if any(point.diverged for point in found.points):
        drawn.add_scatter(**drawing.gone(found.points, ceiling))
    for trace in drawing.causal(found.points):
        drawn.add_scatter(**trace)
    drawing.references(drawn, found.references)
    drawn.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
    return drawn


def _ends(found: Ratio, family: str) -> list[Point]:
    """The RetNet and the Transformer, where the layout ends in them and there is one of each."""
    ends = [found.series.get(name, ()) for name in ("RetNet", "Transformer")]
    return [end[0] for end in ends if len(end) == 1] if family in WITH_ENDS else []
