"""Decoding as it was measured, against context: speed, time a token and memory, by batch.

What counts foretell stands in ``decode``; here are clocks, and beside the context from which retention was
faster those from which it moves fewer bytes and does fewer products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis import bench
from analysis.bench import Crossing
from analysis.figures import style
from analysis.figures.decode import shown
from analysis.figures.measured import Curve, Quantity, curves, device, panel
from analysis.figures.source import MissingError, Source, common

QUANTITIES = {
    "throughput": Quantity(bench.THROUGHPUT, "tokens of all sequences", "tokens / s", rate=True),
    "latency": Quantity(bench.LATENCY, "time a token", "ms, median"),
    "memory": Quantity(bench.MEMORY, "peak memory", "MB", 1e6),
}
#: The smallest batch, the largest and one between: more columns would be too narrow to read.
MOST_BATCHES = 3


@dataclass(frozen=True)
class DecodeBench:
    """``curves`` by quantity and batch; ``batches`` those that are drawn. ``crossings`` are of every model
    and every batch."""

    curves: dict[tuple[str, int], tuple[Curve, ...]]
    batches: tuple[int, ...]
    crossings: tuple[Crossing, ...]
    device: str
    precision: str | None


def data(source: Source) -> DecodeBench:
    """Raises MissingError if nothing was measured, or one architecture in several lines."""
    batches = bench.batches(source.lines)
    if not batches:
        raise MissingError("no decoding was measured (task=decode_bench)")
    found = {
        (name, batch): curves(source.lines, quantity, batch)
        for name, quantity in QUANTITIES.items()
        for batch in batches
    }
    measured = [line for line in source.lines if bench.batches([line])]
    return DecodeBench(
        curves={place: those for place, those in found.items() if those},
        batches=tuple(drawn(batches)),
        crossings=tuple(bench.crossings(source.lines)),
        device=device(source.lines),
        precision=common(measured, "precision"),
    )


def drawn(batches: Sequence[int]) -> list[int]:
    """The ends, and one in the middle."""
    chosen = (batches[0], batches[len(batches) // 2], batches[-1])
    return list(dict.fromkeys(chosen)) if len(batches) > MOST_BATCHES else list(batches)


def chosen(found: DecodeBench) -> list[str]:
    """The architectures that are drawn: both ends and a few ratios, as in the figure of counts."""
    most = max((curves for (name, _), curves in found.curves.items() if name == "latency"), key=len)
    return [curve.label for curve in shown(most)]


def draw(found: DecodeBench) -> Any:
    """A row a quantity, a column a batch; dotted where RetNet begins to be faster."""
    rows = [name for name in QUANTITIES if any(place[0] == name for place in found.curves)]
    size = 3.1 * len(found.batches) + 0.4, 2.5 * len(rows) + 0.7
    figure, grid = style.new(*size, len(rows), len(found.batches), sharex=True)
    labels = chosen(found)
    names = {label: index for index, label in enumerate(labels)}
    for row, name in zip(grid, rows, strict=True):
        for axis, batch in zip(row, found.batches, strict=True):
            those = [c for c in found.curves.get((name, batch), ()) if c.label in names]
            those.sort(key=lambda curve: names[curve.label])
            panel(axis, those, QUANTITIES[name], names)
            axis.set_title(f"{QUANTITIES[name].title}, batch {batch}")
            if name == "latency":
                _mark(axis, [one for one in found.crossings if one.batch == batch])
    for axis in grid[-1]:
        axis.set_xlabel("context, tokens")
    style.legend(figure, list(grid.flat))
    return figure


def _mark(axis: Any, crossings: Sequence[Crossing]) -> None:
    """Where RetNet was faster than the Transformer, and where counts have it."""
    for one in crossings:
        if one.architecture != bench.RETNET:
            continue
        if one.measured:
            axis.axvline(one.measured, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
        how = f"n = {one.measured:,.0f}" if one.measured else one.how.replace(", ", ",\n")  # else too wide
        words = [
            f"RetNet faster: {how}",
            *(f"fewer {name}: n = {at:,.0f}" for name, at in one.counted),
        ]
        low, high = axis.get_ylim()
        room = high * (high / low) ** 0.45 if axis.get_yscale() == "log" else 1.45 * high
        axis.set_ylim(low, room)  # for the words, above every curve
        frame = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axis.text(0.03, 0.97, "\n".join(words), transform=axis.transAxes, va="top", fontsize=7, bbox=frame)
