"""Perplexity against cost, the convention chosen in a drop-down; the report's own points apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures import pareto
from analysis.figures.pareto import Pareto
from analysis.figures.source import Point, Source
from analysis.figures.style import FAMILY
from analysis.report.blocks import Block, Chart, Words
from analysis.report.charts import drawing

FRONT, GONE = "front of the means", "a run diverged"


@dataclass(frozen=True)
class Drawn:
    """One trace under one convention. ``x`` is in MACs, not in units of them: the page holds the
    rows' numbers, and its axis writes M and G."""

    name: str
    points: tuple[Point, ...]
    style: dict[str, Any]

    def coordinates(self, ceiling: float) -> dict[str, list[Any]]:
        return {
            "x": [point.x for point in self.points],
            "y": [min(point.y, ceiling) for point in self.points],
            "hovertext": [drawing.said(point) for point in self.points],
        }


def blocks(source: Source, anchor: str) -> list[Block]:
    """The chart of ``source``, and the report's beside. Raises MissingError."""
    panels = pareto.data(source)
    found: list[Block] = [
        Chart(
            f"{anchor}-pareto",
            front_figure(panels),
            f"Validation perplexity ({panels[0].text}) against cost; down and left is better. The grey steps "
            "join the models that no other beats in both, by their means; bars are 95 % intervals over "
            "seeds. Hollow points see the future (leaky): no likelihood, never on the front.",
        )
    ]
    left_out = {panel.convention.title: panel.left_out for panel in panels if panel.left_out}
    if left_out:
        found.append(
            Words(
                tuple(
                    f"Without a cost under “{title}”: {', '.join(names)}."
                    for title, names in left_out.items()
                ),
                quiet=True,
            )
        )
    if panels[0].report:
        found.append(
            Chart(
                f"{anchor}-report",
                report_figure(panels[0]),
                "The report's own points, on axes of their own: another scale, another text, one run, and a "
                "perplexity of 40 training batches under a mask that leaks cannot stand beside ours.",
            )
        )
    return found


def front_figure(panels: Sequence[Pareto]) -> Any:
    """All panels in one figure, of which the drop-down shows one at a time."""
    first = next((p for p in panels if p.convention.column == "macs_train_forward"), panels[0])
    figure = drawing.new("", f"validation perplexity ({panels[0].text})", 540)
    everything = [point for panel in panels for point in panel.points]
    ceiling = drawing.fit_y(figure, everything, first.references)
    for trace in _traces(first, panels):
        figure.add_scatter(name=trace.name, **trace.style, **trace.coordinates(ceiling))
    _error_bars(figure, _traces(first, panels))
    drawing.references(figure, first.references)
    figure.update_xaxes(title_text=_axis(first), tickformat="~s", exponentformat="SI")
    figure.update_layout(
        margin_t=96,
        updatemenus=[
            {
                "buttons": [_button(panel, panels, ceiling) for panel in panels],
                "active": list(panels).index(first),
                **{"x": 0, "xanchor": "left", "y": 1.22, "yanchor": "top", "pad": {"b": 4}},
                **{"bgcolor": "#fff", "bordercolor": "#8b939c", "showactive": True},
            }
        ],
    )
    return figure


def _traces(panel: Pareto, panels: Sequence[Pareto]) -> list[Drawn]:
    """The front, every family's points that count and those that leak, and what diverged: the same
    traces in the same order for every panel, so that the drop-down can replace their numbers."""
    ring = {"symbol": "circle", "size": 19, "color": "#e3e6ea"}
    front_style = {
        **{"mode": "lines+markers", "marker": ring},
        "line": {"shape": "hv", "color": "#d0d5da", "width": 3},
    }
    found = [Drawn(FRONT, panel.front, {**front_style, "hoverinfo": "skip"})]
    everything = [point for other in panels for point in other.points]
    for family in FAMILY:
        for leaky in (False, True):
            if not any(_shown(point, family, leaky) for point in everything):
                continue
            points = tuple(point for point in panel.points if _shown(point, family, leaky))
            name = f"{family}, leaky" if leaky else family
            style = {"mode": "markers", "marker": drawing.marker(family, leaky)}
            hover = {"hovertemplate": "%{hovertext}<br>%{x:,} MACs<extra></extra>"}
            found.append(Drawn(name, points, style | hover))
    if any(point.diverged for point in everything):
        cross = {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": drawing.INK}}
        style = {"mode": "markers", "marker": cross, "hovertemplate": "%{hovertext}, diverged<extra></extra>"}
        found.append(Drawn(GONE, tuple(point for point in panel.points if point.diverged), style))
    return found


def _shown(point: Point, family: str, leaky: bool) -> bool:
    return point.family == family and point.leaky == leaky and math.isfinite(point.y)


def _error_bars(figure: Any, traces: Sequence[Drawn]) -> None:
    for drawn, trace in zip(figure.data, traces, strict=True):
        if drawn.name not in (FRONT, GONE):
            drawn.error_y = drawing.errors([point.half for point in trace.points])


def _button(panel: Pareto, panels: Sequence[Pareto], ceiling: float) -> dict[str, Any]:
    """What choosing ``panel`` changes: every trace's numbers, and the title of the cost axis."""
    traces = _traces(panel, panels)
    coordinates = [trace.coordinates(ceiling) for trace in traces]
    changed: dict[str, list[Any]] = {key: [each[key] for each in coordinates] for key in coordinates[0]}
    changed["error_y.array"] = [[point.half or 0 for point in trace.points] for trace in traces]
    return {
        "label": f"{panel.convention.title}, {panel.convention.per}",
        "method": "update",
        "args": [changed, {"xaxis.title.text": _axis(panel), "xaxis.autorange": True}],
    }


def _axis(panel: Pareto) -> str:
    return f"MACs {panel.convention.per}: {panel.convention.title}"


def report_figure(panel: Pareto) -> Any:
    figure = drawing.new("GMACs as printed, 127 tokens, width 768", "perplexity as printed", 380)
    for family in FAMILY:
        models = [model for model in panel.report if model.family == family]
        if models:
            figure.add_scatter(
                name=family,
                x=[model.gmacs for model in models],
                y=[model.train_ppl for model in models],
                hovertext=[drawing.text(model.architecture) for model in models],
                hovertemplate="<b>%{hovertext}</b><br>%{y:,} at %{x} GMACs<extra></extra>",
                mode="markers",
                marker=drawing.marker(family) | {"opacity": 0.6},
            )
    if drawing.is_log(model.train_ppl for model in panel.report):
        figure.update_yaxes(type="log", tickformat=",~g", dtick=1)
    figure.update_layout(plot_bgcolor="#f7f8f9")
    return figure
