"""Loss against step, a panel per layout, coloured by the share of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.figures import curves
from analysis.figures.curves import LOSSES, Curve, Curves
from analysis.figures.source import FAMILIES, OTHERS, MissingError, Source
from analysis.report.blocks import Block, Chart
from analysis.report.charts import drawing

ENDS = {"Transformer": "solid", "RetNet": "dash"}


def blocks(source: Source, anchor: str) -> list[Block]:
    """A chart for the training loss and one for the validation loss, those that were kept. Raises
    MissingError without either."""
    found = curves.data(source)
    kept = [name for name, each in found.curves.items() if any(len(curve.steps) > 1 for curve in each)]
    if not kept:
        raise MissingError("no loss was kept at more than one step")
    return [
        Chart(
            f"{anchor}-{quantity}",
            figure(found, quantity),
            f"{LOSSES[quantity].capitalize()} ({found.text}) by step{_smoothed(found.block[quantity])}, "
            "averaged over seeds; the band spans the lowest and the highest run. Thick lines are the "
            "Transformer (solid) and the RetNet (dashed), the same in every panel.",
        )
        for quantity in kept
    ]


def _smoothed(block: int) -> str:
    return f", means of {block} steps" if block > 1 else ""


def figure(found: Curves, quantity: str) -> Any:
    kept = found.curves[quantity]
    families = {curve.family for curve in kept}
    panels = [name for name in (*FAMILIES[2:], OTHERS) if name in families] or ["without hybrids"]
    drawn = drawing.new("", "", 420)
    drawn.update_layout(margin={"t": 36}, showlegend=False)
    width = 1 / len(panels)
    for place, panel in enumerate(panels, start=1):
        suffix = "" if place == 1 else str(place)
        domain = [(place - 1) * width + 0.014, place * width - 0.014]
        drawn.layout[f"xaxis{suffix}"] = {**drawing.AXIS, "domain": domain, "title": {"text": "step"}}
        drawn.layout[f"yaxis{suffix}"] = {
            **drawing.AXIS,
            "anchor": f"x{suffix}",
            "range": _range(kept),
            **({"title": {"text": f"{LOSSES[quantity]}, nats a token"}} if place == 1 else {}),
            **({"matches": "y", "showticklabels": False} if place > 1 else {}),
        }
        drawn.layout[f"xaxis{suffix}"]["anchor"] = f"y{suffix}"
        head = {"xref": "paper", "yref": "paper", "y": 1.02, "yanchor": "bottom", "showarrow": False}
        drawn.add_annotation(
            x=sum(domain) / 2, xanchor="center", text=f"<b>{drawing.text(panel)}</b>", **head
        )
        members = [curve for curve in kept if curve.family in (panel, *ENDS)]
        for curve in sorted(members, key=lambda curve: curve.share or 0.0):
            for trace in _traces(curve):
                drawn.add_scatter(**trace, xaxis=f"x{suffix}", yaxis=f"y{suffix}")
    drawing.share_bar(drawn)
    return drawn


def _traces(curve: Curve) -> list[dict[str, Any]]:
    """The band of runs, where there are several, and the mean."""
    colour = drawing.share_colour(curve.share)
    line = {
        "color": colour,
        "width": 2.6 if curve.family in ENDS else 1.3,
        "dash": ENDS.get(curve.family, "solid"),
    }
    mean = {
        "name": curve.label,
        "x": list(curve.steps),
        "y": list(curve.mean),
        "mode": "lines",
        "line": line,
        "hovertemplate": f"<b>{drawing.text(curve.label)}</b>, {curve.runs} "
        f"run{'s' * (curve.runs > 1)}<br>step %{{x:,}}: %{{y:.4f}}<extra></extra>",
    }
    if curve.runs < 2:
        return [mean]
    band = {
        "x": [*curve.steps, *reversed(curve.steps)],
        "y": [*curve.high, *reversed(curve.low)],
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.16,
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
    }
    return [band, mean]


def _range(kept: Sequence[Curve]) -> list[float]:
    """All that comes after the first tenth: the fall from the start is the same for all and would
    rule the axis. A run that blew up does not stretch it beyond the first value."""
    low = min(min(curve.low) for curve in kept)
    late = max(curve.high[len(curve.high) // 10] for curve in kept)
    high = min(late, max(curve.mean[0] for curve in kept))
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)]
