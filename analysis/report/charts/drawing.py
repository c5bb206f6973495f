"""What all charts of the page share: their look, marks of points, reference lines."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from analysis.columns import number
from analysis.figures.changes import Change
from analysis.figures.ladder import FAR, LINEAR
from analysis.figures.marks import UNDRAWN
from analysis.figures.source import Point, Reference
from analysis.figures.style import FAMILY
from analysis.inference import as_percent, percent

#: matplotlib's markers by plotly's names: a family looks the same on paper and on the page.
SYMBOLS = {
    **{"*": "star", "P": "cross", "o": "circle", "s": "square", "^": "triangle-up"},
    **{"D": "diamond", "v": "triangle-down", "X": "x"},
    **{"<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon"},
}
#: matplotlib's dash patterns, likewise.
DASHES = ("solid", "dash", "dot", "dashdot")
#: On an axis of signed nats, where it is logarithmic.
TICKS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)
GREY, FAINT, INK = "#5a626b", "#a9b0b8", "#1c1f23"
AXIS = {
    "showline": True,
    "linecolor": "#8b939c",
    "gridcolor": "#e8ebee",
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#8b939c",
    "automargin": True,
}


def new(x: str, y: str, height: int = 460, **layout: Any) -> Any:
    """An empty figure; ``x`` and ``y`` are the titles of its axes, ``height`` is in CSS pixels."""
    from plotly.graph_objects import Figure

    return Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 64, "r": 20, "t": 56, "b": 56},
            "font": {"family": "system-ui, 'Segoe UI', Arial, 'Liberation Sans', sans-serif", "color": INK},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hoverlabel": {"align": "left", "bgcolor": "#fff", "font": {"color": INK}},
            "paper_bgcolor": "#fff",
            "plot_bgcolor": "#fff",
            "xaxis": {**AXIS, "title": {"text": x, "standoff": 8}},
            "yaxis": {**AXIS, "title": {"text": y, "standoff": 8}},
            **layout,
        }
    )


def text(value: object) -> str:
    """``value`` such that plotly, which reads some HTML in its labels, shows it as it is."""
    return html.escape(str(value), quote=False)


def marker(family: str, leaky: bool = False) -> dict[str, Any]:
    """A family's mark: filled if its points count, hollow if they are leaky."""
    colour, shape, _ = FAMILY[family]
    size = 13 if shape == "*" else 9
    return mark(colour, shape, leaky) | {"size": size}


def mark(colour: str, shape: str, hollow: bool = False) -> dict[str, Any]:
    width = 1.6 if hollow else 0.6
    line = {"width": width, "color": colour if hollow else "#fff"}
    return {"symbol": SYMBOLS[shape] + ("-open" if hollow else ""), "color": colour, "size": 9, "line": line}


def errors(halves: Sequence[float | None]) -> dict[str, Any]:
    """Error bars of ``halves``; none where no point has an interval."""
    known = any(half is not None for half in halves)
    return {
        "type": "data",
        "array": [half or 0 for half in halves],
        "visible": known,
        "thickness": 1,
        "width": 3,
    }


def curve(
    figure: Any,
    label: str,
    look: dict[str, Any],
    line: tuple[Sequence[float], Sequence[float]],
    points: tuple[Sequence[float], Sequence[float]],
    tip: str,
    halves: Sequence[float | None] = (),
) -> None:
    """Adds a line, and the marks of what was counted or measured on it: switched on and off together.

    ``look`` is :func:`looks`'s; ``line`` and ``points`` are (xs, ys); ``tip`` is what a mark says of its
    %{x} and %{y} when pointed at; ``halves`` of the points' intervals, if they have any.
    """
    figure.add_scatter(
        x=line[0],
        y=line[1],
        mode="lines",
        line=look["line"],
        hoverinfo="skip",
        showlegend=False,
        legendgroup=label,
    )
    figure.add_scatter(
        name=text(label),
        x=points[0],
        y=points[1],
        mode="lines+markers",  # the line, too thin to be seen, gives the legend its dash
        line={**look["line"], "width": 0.01},
        marker=look["marker"],
        legendgroup=label,
        error_y=errors(halves),
        hovertemplate=f"<b>{text(label)}</b><br>{tip}<extra></extra>",
    )


def looks(colour: str, shape: str, index: int) -> dict[str, Any]:
    """The line and mark of the ``index``-th curve of a chart."""
    line = {"color": colour, "width": 1.6, "dash": DASHES[index % len(DASHES)]}
    return {"line": line, "marker": mark(colour, shape)}


def said(point: Point) -> str:
    """What a point says when pointed at, beside its numbers."""
    half = f" ± {number(point.half)}" if point.half is not None else ""
    runs = f"{point.ok} of {point.n} seeds" if point.ok < point.n else f"{point.n} seed{'s' * (point.n > 1)}"
    return f"<b>{text(point.label)}</b><br>{number(point.y)}{half}, {runs}{', leaky' if point.leaky else ''}"


def is_log(values: Iterable[float]) -> bool:
    """Whether the values span so much that a linear axis would press most of them together."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    return bool(finite) and max(finite) / min(finite) > 3


def fit_y(figure: Any, points: Sequence[Point], lines: Sequence[Reference], causal: bool = False) -> float:
    """Fits the y-axis to what is finite, logarithmic where that spans more than 3. Returns the
    height at which what diverged is drawn. ``causal``: :func:`causal` is drawn too."""
    shown = [line.y for line in lines if line.label not in UNDRAWN]
    shown += [point.causal for point in points if causal and point.causal is not None]
    finite = [point for point in points if math.isfinite(point.y)]
    high = max([*shown, *(point.y + (point.half or 0) for point in finite)], default=10.0)
    # an interval may reach below zero; what it says then is that nothing is known
    floor = 0.5 * min((point.y for point in finite), default=1.0)
    low = max(floor, min([*shown, *(point.y - (point.half or 0) for point in finite)], default=1.0))
    if is_log([low, high]):
        ceiling = float(high * (high / low) ** 0.06)
        bottom = low / (high / low) ** 0.05
        figure.update_yaxes(type="log", range=[math.log10(bottom), math.log10(ceiling) + 0.02])
        figure.update_yaxes(tickformat=",~g", minor={"ticks": "outside"}, dtick="D2")
        return ceiling
    step = (high - low) or 0.1 * high
    ceiling = float(high + 0.07 * step)
    figure.update_yaxes(range=[low - 0.06 * step, ceiling + 0.03 * step])
    return ceiling


def gone(points: Sequence[Point], ceiling: float) -> dict[str, Any]:
    """The trace of the points of which a run diverged: crossed, at ``ceiling`` where no finite value
    is left."""
    crossed = [point for point in points if point.diverged]
    return {
        "name": "a run diverged",
        "x": [point.x for point in crossed],
        "y": [min(point.y, ceiling) for point in crossed],
        "hovertext": [said(point) for point in crossed],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "mode": "markers",
        "marker": {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": INK}},
        "visible": bool(crossed),
        "showlegend": bool(crossed),
    }


def causal(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A trace of small dots: what the weights of leaky points reach when they cannot look ahead."""
    seen = [(point, point.causal) for point in points if point.causal is not None]
    if not seen:
        return []
    trace = {
        "name": "leaky weights, causal mask",
        "x": [point.x for point, _ in seen],
        "y": [value for _, value in seen],
        "hovertext": [
            f"<b>{text(point.label)}</b><br>{number(value)} under a causal mask" for point, value in seen
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "mode": "markers",
        "marker": {"size": 5, "color": [FAMILY[point.family][0] for point, _ in seen]},
    }
    return [trace]


def share_colour(share: float | None) -> str:
    """Light to dark as attention's share rises: cividis, whose order also holds in grey."""
    from plotly.colors import sample_colorscale

    return FAINT if share is None else str(sample_colorscale("Cividis", [0.88 * (1 - share)])[0])


def colour_and_shape(family: str, share: float | None) -> tuple[str, str]:
    """Of a curve against context: a type's by its share of attention, so that its ratios differ."""
    colour, shape, _ = FAMILY[family]
    return share_colour(share) if family.startswith("Type") else colour, shape


def share_bar(figure: Any) -> None:
    """The key to :func:`share_colour`, at the right."""
    scale = [[step / 10, share_colour(step / 10)] for step in range(11)]
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={
            "color": [0],
            "cmin": 0,
            "cmax": 1,
            "colorscale": scale,
            "showscale": True,
            "colorbar": {
                "title": {"text": "share of attention", "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
            },
        },
    )


def words(change: Change) -> str:
    """ "−7.7 % (−8.3 to −7.0)", "not resolved (...)", or why there is no number: of perplexities."""
    if change.nats is None or math.isinf(change.nats):
        return change.why or "diverged"
    if change.low is None or change.high is None:
        return f"{_signed(change.nats)} %, no interval"
    between = f"{_signed(change.low)} to {_signed(change.high)}"
    if change.low <= 0 <= change.high:
        return f"not resolved ({between})"
    return f"{_signed(change.nats)} % ({between})"


def _signed(nats: float) -> str:
    value = as_percent(nats)
    return f"{'−' if value < 0 else '+'}{percent(abs(value))}"


def signed(low: float, high: float) -> tuple[Callable[[float], float], dict[str, Any]]:
    """Where a number of nats is drawn, and the ticks that say so: linear, and logarithmic outside of
    LINEAR if anything lies far beyond it, so that small changes can be read beside large ones."""
    if max(-low, high) <= FAR:
        return (lambda nats: nats), {}

    def place(nats: float) -> float:
        return math.asinh(nats / LINEAR)

    sides = [sign * tick for tick in TICKS for sign in (-1, 1)]
    shown = sorted([0.0, *(tick for tick in sides if 1.5 * low <= tick <= 1.5 * high)])
    return place, {"tickvals": [place(tick) for tick in shown], "ticktext": [f"{tick:g}" for tick in shown]}


def references(figure: Any, lines: Sequence[Reference]) -> None:
    """Dotted horizontal lines, each with its name and value at the right end; what the axis does not
    reach is written at its edge. Call when the axis has its range."""
    is_log_axis = figure.layout.yaxis.type == "log"
    low, high = figure.layout.yaxis.range
    for line in lines:
        if line.label in UNDRAWN:
            continue
        y = math.log10(line.y) if is_log_axis else line.y
        words = f"{text(line.label)} {number(line.y)}"
        named = {"xref": "paper", "x": 1, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
        named["font"] = {"size": 11, "color": GREY}
        if y < low:
            figure.add_annotation(**named, yref="paper", y=0, text=f"{words}, below the axis")
        elif y > high:
            figure.add_annotation(
                **named | {"yanchor": "top"}, yref="paper", y=1, text=f"{words}, above the axis"
            )
        else:  # add_hline would put its own words at 10^y on a logarithmic axis
            figure.add_hline(y=line.y, line={"color": FAINT, "width": 1, "dash": "dot"})
            figure.add_annotation(**named, y=y, text=words)
