"""Decoding and training as they were measured, against context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis import bench
from analysis.columns import number
from analysis.figures import decode_bench, train_bench
from analysis.figures.decode import shown
from analysis.figures.measured import Curve, Quantity, is_log, pieces
from analysis.figures.source import Source
from analysis.report.blocks import Block, Chart, grid
from analysis.report.charts import drawing

MEANS = "Means over seeds; bars are 95 % intervals."
FULL_SQUARE = " Attention counts by the full square, causality ignored."


def decoding(source: Source, anchor: str) -> list[Block]:
    """A chart a quantity and batch, and from where each model was faster than the Transformer. Raises
    MissingError without measurements."""
    found = decode_bench.data(source)
    labels = decode_bench.chosen(found)
    where = ", ".join(filter(None, (found.device, found.precision)))
    blocks: list[Block] = [
        Chart(
            f"{anchor}-{name}-{batch}",
            figure(curves, quantity, "context, tokens", labels),
            f"Decoding, batch {batch}: {quantity.title}, on {where}. {MEANS}",
        )
        for batch in found.batches
        for name, quantity in decode_bench.QUANTITIES.items()
        if (curves := found.curves.get((name, batch), ()))
    ]
    heads = ["model", "batch", "faster than the Transformer from", "fewer bytes from", "fewer MACs from"]
    rows = [
        [one.label, str(one.batch), one.said, _place(one.bytes), _place(one.macs)] for one in found.crossings
    ]
    if rows:
        blocks.append(grid(f"{anchor}-crossings", heads, rows, wide=True))
    blocks += _counted_beside(source, anchor)
    flat = [
        [one.label, str(one.batch), f"{one.far:,}", one.ratio, one.target, one.states]
        for one in bench.flatness(source.lines)
        if one.alone
    ]
    heads = ["model", "batch", "context", f"ms by ms at {bench.NEAR:,}", f"target < {bench.FLAT:g}", "states"]
    return [*blocks, *([grid(f"{anchor}-flatness", heads, flat, wide=True)] if flat else [])]


def _counted_beside(source: Source, anchor: str) -> list[Block]:
    """What a token takes, and beside it what is counted: products, and bytes of the dtypes stated."""
    wide = bench.dtypes(source.lines)
    moved = f"moved MB ({wide})" if wide else "moved MB"
    heads = ["model", "context", "batch", "ms a token", "MMACs a token", moved]
    rows = [
        [
            str(line["label"]),
            f"{n:,}",
            str(batch),
            number(ms),
            _millions(line.get(f"{bench.MACS}{n}")),
            _millions(line.get(f"{bench.MOVED}{n}_b{batch}")),
        ]
        for line in source.lines
        for batch in bench.batches([line])
        for n, ms in bench.by_context(line, bench.LATENCY, batch).items()
    ]
    return [grid(f"{anchor}-counted", heads, rows, wide=True)]


def _millions(value: Any) -> str:
    return number(value / 1e6) if isinstance(value, (int, float)) else ""


def training(source: Source, anchor: str) -> list[Block]:
    """A chart a quantity. Raises MissingError without measurements."""
    found = train_bench.data(source)
    labels = [curve.label for curve in shown(found.curves["throughput"])]
    return [
        Chart(
            f"{anchor}-{name}",
            figure(curves, train_bench.QUANTITIES[name], "training context, tokens", labels),
            f"{_capital(train_bench.QUANTITIES[name].title)}, on {found.device}. {MEANS}"
            f"{FULL_SQUARE if name == 'mfu' else ''}",
        )
        for name, curves in found.curves.items()
    ]


def figure(curves: Sequence[Curve], quantity: Quantity, x: str, names: Sequence[str]) -> Any:
    """The ``curves`` that are among ``names``, whose order gives each its dash, the same in every chart."""
    drawn = drawing.new(x, quantity.axis, 380)
    curves = sorted((c for c in curves if c.label in names), key=lambda curve: names.index(curve.label))
    for curve in curves:
        along, values = pieces(curve, quantity.rate)
        drawing.curve(
            drawn,
            curve.label,
            drawing.looks(*drawing.colour_and_shape(curve.family, curve.share), names.index(curve.label)),
            line=(along, [value / quantity.unit for value in values]),
            points=(list(curve.values), [value / quantity.unit for value in curve.values.values()]),
            tip=f"%{{x:,}} tokens: %{{y:,.4g}} {quantity.axis}",
            halves=[curve.halves[n] / quantity.unit if n in curve.halves else None for n in curve.values],
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
