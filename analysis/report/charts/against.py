"""Ratios against model size and against training context."""

from __future__ import annotations

import math
from typing import Any

from analysis.figures import context, scaling
from analysis.figures.against import Against, Series
from analysis.figures.source import FAMILIES, Source
from analysis.figures.style import FAMILY
from analysis.report.blocks import Block, Chart
from analysis.report.charts import drawing


def by_size(source: Source, anchor: str) -> list[Block]:
    """Raises MissingError where no architecture was trained at two widths."""
    return _blocks(scaling.data(source), f"{anchor}-scaling", "parameters")


def by_context(source: Source, anchor: str) -> list[Block]:
    """Raises MissingError where no architecture was trained at two contexts."""
    return _blocks(context.data(source), f"{anchor}-context", "training context, tokens")


def _blocks(found: Against, anchor: str, label: str) -> list[Block]:
    charts: list[Block] = [
        Chart(
            anchor,
            perplexities(found, label),
            f"Validation perplexity ({found.text}) of each architecture; bars are 95 % intervals over seeds.",
        )
    ]
    if any(change and change.nats is not None for series in found.series for change in series.changes):
        charts.append(
            Chart(
                f"{anchor}-change",
                changes(found, label),
                "The same as a difference from the Transformer's mean negative log-likelihood at the same "
                "place: below zero is better. Bars are 95 % intervals, seeds as blocks, the variance pooled.",
            )
        )
    return charts


def perplexities(found: Against, label: str) -> Any:
    drawn = drawing.new(label, f"validation perplexity ({found.text})")
    points = [point for series in found.series for point in series.points]
    ceiling = drawing.fit_y(drawn, points, ())
    for index, series in enumerate(found.series):
        leaky = any(point.leaky for point in series.points)
        shown = [point for point in series.points if math.isfinite(point.y)]
        drawn.add_scatter(
            name=drawing.text(f"{series.architecture}, leaky" if leaky else series.architecture),
            x=[point.x for point in shown],
            y=[point.y for point in shown],
            hovertext=[drawing.said(point) for point in shown],
            hovertemplate=f"%{{hovertext}}<br>%{{x:,}} {label}<extra></extra>",
            error_y=drawing.errors([point.half for point in shown]),
            **_look(series, index, leaky),
        )
    if any(point.diverged for point in points):
        drawn.add_scatter(**drawing.gone(points, ceiling))
    _log_x(drawn, found)
    return drawn


def changes(found: Against, label: str) -> Any:
    drawn = drawing.new(label, "NLL minus the Transformer's, nats a token", 400)
    for index, series in enumerate(found.series):
        known = [
            (point, change)
            for point, change in zip(series.points, series.changes, strict=True)
            if change and change.nats is not None and math.isfinite(change.nats)
        ]
        if series.family == "Transformer" or not known:
            continue
        values = [change.nats or 0.0 for _, change in known]
        low = [
            value if change.low is None else change.low
            for value, (_, change) in zip(values, known, strict=True)
        ]
        high = [
            value if change.high is None else change.high
            for value, (_, change) in zip(values, known, strict=True)
        ]
        drawn.add_scatter(
            name=drawing.text(series.architecture),
            x=[point.x for point, _ in known],
            y=values,
            hovertext=[
                f"<b>{drawing.text(point.label)}</b><br>{change.percent:+.2f} % perplexity"
                f"{f'<br>no interval: {drawing.text(change.why)}' if change.low is None else ''}"
                for point, change in known
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            error_y={
                "type": "data",
                "array": [end - value for end, value in zip(high, values, strict=True)],
                "arrayminus": [value - end for end, value in zip(low, values, strict=True)],
                "visible": any(change.low is not None for _, change in known),
                "thickness": 1,
                "width": 3,
            },
            **_look(series, index, False),
        )
    drawn.add_hline(y=0, line={"color": drawing.INK, "width": 1})
    _log_x(drawn, found)
    return drawn


def _look(series: Series, index: int, leaky: bool) -> dict[str, Any]:
    colour, shape, _ = FAMILY[series.family]
    if series.family not in FAMILIES[:2]:
        colour = drawing.share_colour(series.share)
    dash = drawing.DASHES[index % len(drawing.DASHES)]
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1.5, "dash": dash},
        "marker": drawing.mark(colour, shape, leaky),
    }


def _log_x(drawn: Any, found: Against) -> None:
    drawn.update_xaxes(type="log", tickformat="~s")
    if found.axis == found.column:
        drawn.update_xaxes(tickvals=list(found.places), ticktext=[f"{place:,}" for place in found.places])
