"""Decoding and training as they were measured, against context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.figures import decode_bench, train_bench
from analysis.figures.decode import shown
from analysis.figures.measured import Curve, Quantity, is_log, pieces
from analysis.figures.source import Source
from analysis.figures.style import FAMILY
from analysis.report.blocks import Block, Chart, grid
from analysis.report.charts import drawing

MEANS = "Means over seeds; bars are 95 % intervals."


def decoding(source: Source, anchor: str) -> list[Block]:
    """A chart a quantity and batch, and from where each model was faster than the Transformer. Raises
    MissingError without measurements."""
    found = decode_bench.data(source)
    labels = decode_bench.chosen(found)
    where = ", ".join(filter(None, (found.device, found.dtype)))
    blocks: list[Block] = [
        Chart(
            f"{anchor}-{name}-{batch}",
            figure([c for c in curves if c.label in labels], quantity, "context, tokens"),
            f"Decoding, batch {batch}: {quantity.title}, on {where}. {MEANS}",
        )
        for batch in found.batches
        for name, quantity in decode_bench.QUANTITIES.items()
        if (curves := found.curves.get((name, batch), ()))
    ]
    heads = ["model", "batch", "faster than the Transformer from", "fewer bytes from", "fewer MACs from"]
    rows = [
        [one.architecture, str(one.batch), one.said, _place(one.bytes), _place(one.macs)]
        for one in found.crossings
    ]
    return [*blocks, *([grid(f"{anchor}-crossings", heads, rows, wide=True)] if rows else [])]


def training(source: Source, anchor: str) -> list[Block]:
    """A chart a quantity. Raises MissingError without measurements."""
    found = train_bench.data(source)
    labels = [curve.label for curve in shown(found.curves["throughput"])]
    return [
        Chart(
            f"{anchor}-{name}",
            figure(
                [c for c in curves if c.label in labels],
                train_bench.QUANTITIES[name],
                "training context, tokens",
            ),
            f"{_capital(train_bench.QUANTITIES[name].title)}, on {found.device}. {MEANS}",
        )
        for name, curves in found.curves.items()
    ]


def figure(curves: Sequence[Curve], quantity: Quantity, x: str) -> Any:
    drawn = drawing.new(x, quantity.axis, 380)
    for index, curve in enumerate(curves):
        colour, shape, _ = FAMILY[curve.family]
        if curve.family.startswith("Type"):
            colour = drawing.share_colour(curve.share)
        line = {"color": colour, "width": 1.6, "dash": drawing.DASHES[index % len(drawing.DASHES)]}
        along, values = pieces(curve, quantity.rate)
        drawn.add_scatter(
            x=along,
            y=[value / quantity.unit for value in values],
            mode="lines",
            line=line,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=curve.label,
        )
        drawn.add_scatter(
            name=drawing.text(curve.label),
            x=list(curve.values),
            y=[value / quantity.unit for value in curve.values.values()],
            mode="lines+markers",
            line={**line, "width": 0.01},
            marker=drawing.mark(colour, shape),
            legendgroup=curve.label,
            error_y=drawing.errors(
                [curve.halves[n] / quantity.unit if n in curve.halves else None for n in curve.values]
            ),
            hovertemplate=f"<b>{drawing.text(curve.label)}</b><br>%{{x:,}} tokens: %{{y:,.4g}} "
            f"{quantity.axis}<extra></extra>",
        )
    ticks = sorted({n for curve in curves for n in curve.values})
    drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{n:,}" for n in ticks])
    if is_log(curves):
        drawn.update_yaxes(type="log", tickformat=",~g", dtick="D2")
    else:
        drawn.update_yaxes(rangemode="tozero", tickformat=",~g")
    return drawn


def _place(context: float | None) -> str:
    return f"{context:,.0f}" if context else ""


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
