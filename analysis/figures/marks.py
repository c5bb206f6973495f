"""How points are drawn: filled if they count, hollow if leaky, crossed if diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.columns import number
from analysis.figures import style
from analysis.figures.source import Point, Reference

#: Far above everything: its line would rule the axis. Tables have it.
UNDRAWN = ("unigram",)


def set_limits(
    axis: Any, points: Sequence[Point], lines: Sequence[Reference] = (), causal: bool = False
) -> float:
    """Fits the y-axis to what is finite; logarithmic where it spans more than 3. Returns the height
    at which what diverged is drawn."""
    ends: list[float] = [
        end for p in points if math.isfinite(p.y) for end in (p.y - (p.half or 0), p.y + (p.half or 0))
    ]
    ends += [line.y for line in lines if line.label not in UNDRAWN]
    ends += [p.causal for p in points if causal and p.causal is not None]
    # an interval may reach below zero; what it says then is that nothing is known
    low: float = max(
        min(ends, default=1.0), 0.5 * min((p.y for p in points if math.isfinite(p.y)), default=1.0)
    )
    high: float = max(ends, default=10.0)
    gone = any(not math.isfinite(p.y) for p in points)
    if high / low > 3:
        factor = math.log(high / low)
        ceiling = high * math.exp(factor * (0.10 if gone else 0.05))
        axis.set_ylim(low / math.exp(0.05 * factor), ceiling * math.exp(factor * (0.04 if gone else 0)))
        style.plain_log(axis)
        return ceiling
    step = (high - low) or 0.1 * high
    ceiling = high + (0.10 if gone else 0.05) * step
    axis.set_ylim(low - 0.05 * step, ceiling + (0.04 * step if gone else 0))
    return ceiling


def points(axis: Any, found: Sequence[Point], ceiling: float, scale: float = 1.0, shift: float = 0.0) -> None:
    """Every point with its interval, by family; x is divided by ``scale``, and drawn ``shift``
    points (1/72 inch) aside. What diverged is crossed, at ``ceiling`` if it has no finite value."""
    for name, (colour, marker, _) in style.FAMILY.items():
        members = [p for p in found if p.family == name]
        size = 9 if marker in "*P" else 5
        if members:
            style.key(axis, name, marker, colour, markersize=size)
        for leaky in (False, True):
            group = [p for p in members if p.leaky == leaky and math.isfinite(p.y)]
            if group:
                axis.errorbar(
                    [p.x / scale for p in group],
                    [p.y for p in group],
                    yerr=[p.half or 0.0 for p in group] if any(p.half for p in group) else None,
                    color=colour,
                    marker=marker,
                    markersize=size,
                    markerfacecolor="white" if leaky else colour,
                    markeredgewidth=0.6,
                    linestyle="none",
                    elinewidth=0.8,
                    transform=aside(axis, shift),
                )
    if any(p.leaky for p in found):
        style.key_leaky(axis)
    gone = [p for p in found if p.diverged]
    if gone:
        axis.plot(
            [p.x / scale for p in gone],
            [min(p.y, ceiling) for p in gone],
            linestyle="none",
            marker="x",
            color="0.1",
            markersize=8,
            markeredgewidth=1.2,
            clip_on=False,
            transform=aside(axis, shift),
        )
        style.key_diverged(axis)


def causal(axis: Any, found: Sequence[Point]) -> None:
    """Small dots: what the weights of leaky points reach when they cannot look ahead."""
    for p in found:
        if p.causal is not None:
            axis.plot([p.x], [p.causal], ".", color=style.FAMILY[p.family][0], markersize=4)
    if any(p.causal is not None for p in found):
        style.key(axis, "dot: its weights, causal mask", ".", "0.3", markersize=4)


def extent(found: Sequence[Point], ceiling: float, scale: float = 1.0) -> list[tuple[float, float]]:
    """Where markers and intervals are (x, y), for names to keep off."""
    spots = [(p.x / scale, min(p.y, ceiling)) for p in found]
    for p in found:
        if p.half and math.isfinite(p.y):
            spots += [(p.x / scale, p.y + p.half * part / 4) for part in (-4, -3, -2, -1, 1, 2, 3, 4)]
    return spots


def references(axis: Any, lines: Sequence[Reference]) -> None:
    """Dotted horizontal lines, each with its name and value at the right end; what the axis does not
    reach is written at its edge. Call when the axis has its limits."""
    low, high = axis.get_ylim()
    for line in lines:
        if line.label in UNDRAWN:
            continue
        beyond = ", below the axis" if line.y < low else ", above the axis" if line.y > high else ""
        if not beyond:
            axis.axhline(line.y, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
        axis.annotate(
            f"{line.label} {number(line.y)}{beyond}",
            (1, min(max(line.y, low), high)),
            (-1, -9 if line.y > high else 1.5),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=style.GREY,
        )


def aside(axis: Any, shift: float) -> Any:
    """Data coordinates, drawn ``shift`` points (1/72 inch) to the right."""
    from matplotlib.transforms import ScaledTranslation

    if not shift:
        return axis.transData
    return axis.transData + ScaledTranslation(shift / 72, 0, axis.figure.dpi_scale_trans)
