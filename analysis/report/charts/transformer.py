"""Every model against the Transformer: as the report printed it, and under each protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures.changes import Change, compare
from analysis.inference import Model, NoInference
from analysis.published import retformers
from analysis.report.blocks import Cell, Chart, Grid, GridRow, Head, sort_key
from analysis.report.charts import drawing
from analysis.report.plain import Plain

BASE = "Transformer"
REPORT = "the report, train"
#: Colour, shape and place in its row of every series.
MARKS = (
    ("#a9b0b8", "X"),
    ("#D55E00", "s"),
    ("#0072B2", "o"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
)


@dataclass(frozen=True)
class Against:
    """One source of numbers: ``changes`` by architecture, each minus the Transformer's NLL of the
    same source; ``leaky`` are those whose weights saw the future in training."""

    name: str
    changes: dict[str, Change]
    leaky: frozenset[str] = frozenset()


def blocks(found: Sequence[Plain], anchor: str) -> list[Chart | Grid]:
    """The chart and its table; [] without a Transformer to compare with."""
    measured = [_measured(each, len(found) > 1) for each in found if BASE in each.lines]
    names = _in_order([name for series in measured for name in series.changes])
    if len(names) < 2:
        return []
    series = [_report(names), *measured]
    text = found[0].study.source.text
    return [
        Chart(
            f"{anchor}-chart",
            figure(series, names),
            f"NLL of each model minus the Transformer's: left of zero, it is better. Measured: of validation "
            f"text ({text}), with 95 % intervals, hollow where the weights leaked in training and were "
            "evaluated under a causal mask. The report's is of its own training batches, one run, under a "
            "mask that leaks.",
        ),
        _table(f"{anchor}-table", series, names),
    ]


def _in_order(names: Sequence[str]) -> list[str]:
    """Each once: the report's models in its order, then others as they come."""
    order = {model.architecture: place for place, model in enumerate(retformers())}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))


def _measured(found: Plain, several: bool) -> Against:
    try:
        fitted, why = found.model("valid nll"), ""
    except NoInference as none:
        fitted, why = None, str(none)
    name = f"{found.study.name}, {found.protocol}" if several else f"{found.protocol} protocol"
    leaky = frozenset(name for name, line in found.lines.items() if line.get("leaky"))
    return Against(name, _changes(found, fitted, why), leaky)


def _changes(found: Plain, fitted: Model | None, why: str) -> dict[str, Change]:
    base = found.lines[BASE]
    return {
        name: compare(fitted, why, line, base)
        for name, line in found.lines.items()
        if name != BASE and not line.get("reference")
    }


def _report(names: Sequence[str]) -> Against:
    printed = {model.architecture: math.log(model.train_ppl) for model in retformers()}
    return Against(REPORT, {name: Change(printed[name] - printed[BASE]) for name in names if name in printed})


def figure(series: Sequence[Against], names: Sequence[str]) -> Any:
    ends = [
        end
        for one in series
        for change in one.changes.values()
        for end in (change.nats, change.low, change.high)
        if end is not None and math.isfinite(end)
    ]
    place, ticks = drawing.signed(min(ends, default=-0.1), max(ends, default=0.1))
    drawn = drawing.new(
        "NLL minus the Transformer's, nats a token (left is better)", "", 140 + 24 * len(names)
    )
    for index in range(1, len(names), 2):
        band = {"fillcolor": "#f5f6f8", "line": {"width": 0}, "layer": "below"}
        drawn.add_hrect(y0=index - 0.5, y1=index + 0.5, **band)
    drawn.add_vline(x=0, line={"color": drawing.INK, "width": 1})
    for index, one in enumerate(series):
        aside = 0.6 * ((index + 0.5) / len(series) - 0.5)
        for leaky in (False, True):
            known = {
                name: change
                for name, change in one.changes.items()
                if change.nats is not None and math.isfinite(change.nats) and (name in one.leaky) == leaky
            }
            if known:
                drawn.add_scatter(
                    **_trace(one.name, known, leaky, place, index), y=[names.index(n) + aside for n in known]
                )
    numbered = {"tickvals": list(range(len(names))), "ticktext": [drawing.text(name) for name in names]}
    drawn.update_xaxes(**ticks)
    drawn.update_yaxes(**numbered, range=[len(names) - 0.5, -0.5], showgrid=False, ticks="")
    return drawn


def _trace(name: str, known: dict[str, Change], leaky: bool, place: Any, index: int) -> dict[str, Any]:
    x = [place(change.nats) for change in known.values()]
    highs = [change.nats if change.high is None else change.high for change in known.values()]
    lows = [change.nats if change.low is None else change.low for change in known.values()]
    return {
        "name": drawing.text(f"{name}, leaky weights" if leaky else name),
        "x": x,
        "mode": "markers",
        "marker": drawing.mark(*MARKS[index % len(MARKS)], hollow=leaky),
        "hovertext": [f"<b>{drawing.text(model)}</b>, {drawing.text(name)}" for model in known],
        "customdata": [drawing.text(drawing.words(change)) for change in known.values()],
        "hovertemplate": "%{hovertext}<br>%{customdata}<extra></extra>",
        "error_x": {
            "type": "data",
            "array": [place(high) - at for high, at in zip(highs, x, strict=True)],
            "arrayminus": [at - place(low) for low, at in zip(lows, x, strict=True)],
            "visible": any(change.low is not None for change in known.values()),
            "thickness": 1,
            "width": 3,
        },
    }


def _table(anchor: str, series: Sequence[Against], names: Sequence[str]) -> Grid:
    def cell(one: Against, name: str) -> Cell:
        change = one.changes.get(name)
        if change is None:
            return Cell("", sort_key(None))
        said = (
            drawing.words(change).removesuffix(", no interval")
            if one.name == REPORT
            else drawing.words(change)
        )
        return Cell(said, sort_key(change.nats))

    rows = [GridRow((Cell(name), *(cell(one, name) for one in series))) for name in names]
    heads = (Head("model"), *(Head(one.name, numeric=True) for one in series))
    return Grid(
        anchor,
        heads,
        tuple(rows),
        caption="Perplexity above (+) or below (−) the Transformer's, in % of it. “Not resolved”: the 95 % "
        "interval includes zero; each stands for itself, without a correction for their number.",
        sortable=True,
    )
