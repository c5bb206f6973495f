"""Every model against the Transformer: as the report printed it, and under each protocol.

The report's differences stand in a panel of their own: they are of another quantity (a training
perplexity that leaks), at another scale, of another text, and no axis is common to both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.aggregate import Line
from analysis.figures.changes import Change, compare, estimated
from analysis.figures.source import is_finite
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
    several = len(found) > 1
    with_base = [each for each in found if BASE in each.lines]
    measured = [_measured(each, several) for each in with_base]
    measured += [_as_measured(each, several) for each in with_base if each.protocol == "published"]
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
            "evaluated under a causal mask. “Train, as measured”: of the training perplexity, which leaks as "
            "in the report. The report's own differences, at the right, are not comparable in size: other "
            "quantity, scale and text, one run, under a mask that leaks. Only their order is."
            f"{_left_out(with_base)}",
        ),
        _table(f"{anchor}-table", series, names),
    ]


def _left_out(found: Sequence[Plain]) -> str:
    count = sum(len(each.namesakes) for each in found)
    if not count:
        return ""
    return (
        f" {count} model{'s are' if count > 1 else ' is'} left out, whose architecture stands more than once "
        "(patterns of one ratio, sizes, rates): see the table of every model, and the front."
    )


def _in_order(names: Sequence[str]) -> list[str]:
    """Each once: the report's models in its order, then others as they come."""
    order = {model.architecture: place for place, model in enumerate(retformers())}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))


def _measured(found: Plain, several: bool) -> Against:
    try:
        fitted, why = found.model("valid nll"), ""
    except NoInference as none:
        fitted, why = None, str(none)
    name = _called(found, several)
    leaky = frozenset(name for name, line in found.lines.items() if line.get("leaky"))
    return Against(name, _changes(found, fitted, why), leaky)


def _called(found: Plain, several: bool) -> str:
    return f"{found.study.name}, {found.protocol}" if several else f"{found.protocol} protocol"


def _as_measured(found: Plain, several: bool) -> Against:
    """The same of the training perplexity, leaks and all: the report's quantity. Never marked as
    leaky, which would say that a causal mask was put on."""
    try:
        fitted, why = found.model("train nll", "as trained"), ""
    except NoInference as none:
        fitted, why = None, str(none)
    names = [name for name, line in found.lines.items() if name != BASE and not line.get("reference")]
    return Against(
        f"{_called(found, several)}, train, as measured",
        {name: _train_change(found.lines[name], found.lines[BASE], fitted, why) for name in names},
    )


def _train_change(line: Line, base: Line, fitted: Model | None, why: str) -> Change:
    if fitted is not None:
        try:
            return estimated(fitted.difference(str(line["variant_hash"]), str(base["variant_hash"])))
        except NoInference as none:
            why = str(none)
    values = [line.get("train_ppl"), base.get("train_ppl")]
    known = [math.log(value) for value in values if is_finite(value) and value > 0]
    return Change(known[0] - known[1], why=why) if len(known) == 2 else Change(None, why=why)


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
    """What was measured at the left, what the report printed in a panel and on an axis of its own."""
    drawn = drawing.new(
        "NLL minus the Transformer's, nats a token (left is better)", "", 170 + 24 * len(names)
    )
    for index in range(1, len(names), 2):
        band = {"fillcolor": "#f5f6f8", "line": {"width": 0}, "layer": "below"}
        drawn.add_hrect(y0=index - 0.5, y1=index + 0.5, **band)
    panels = {
        "x": ([one for one in series if one.name != REPORT], (0.0, 0.64), "measured here"),
        "x2": (
            [one for one in series if one.name == REPORT],
            (0.7, 1.0),
            "not comparable in size: the report",
        ),
    }
    for axis, (members, domain, title) in panels.items():
        place, ticks = drawing.signed(*_limits(members))
        look = {**drawing.AXIS, "domain": list(domain), **ticks}
        drawn.update_layout({f"xaxis{axis[1:]}": look if axis == "x" else {**look, "anchor": "y"}})
        line = {"color": drawing.INK, "width": 1}
        drawn.add_shape(type="line", xref=axis, x0=0, x1=0, yref="paper", y0=0, y1=1, line=line)
        head = {"xref": "paper", "yref": "paper", "y": 0, "yanchor": "top", "yshift": -40, "showarrow": False}
        drawn.add_annotation(x=sum(domain) / 2, xanchor="center", text=f"<b>{title}</b>", **head)
        _draw(drawn, members, names, place, axis)
    drawn.update_layout(margin_b=84, xaxis_title_standoff=2)
    numbered = {"tickvals": list(range(len(names))), "ticktext": [drawing.text(name) for name in names]}
    drawn.update_yaxes(**numbered, range=[len(names) - 0.5, -0.5], showgrid=False, ticks="")
    return drawn


def _limits(series: Sequence[Against]) -> tuple[float, float]:
    ends = [
        end
        for one in series
        for change in one.changes.values()
        for end in (change.nats, change.low, change.high)
        if end is not None and math.isfinite(end)
    ]
    return min(ends, default=-0.1), max(ends, default=0.1)


def _draw(
    drawn: Any, series: Sequence[Against], names: Sequence[str], place: Callable[[float], float], axis: str
) -> None:
    for index, one in enumerate(series):
        aside = 0.6 * ((index + 0.5) / len(series) - 0.5)
        look = 0 if one.name == REPORT else 1 + index % (len(MARKS) - 1)
        for leaky in (False, True):
            known = {
                name: change
                for name, change in one.changes.items()
                if change.nats is not None and math.isfinite(change.nats) and (name in one.leaky) == leaky
            }
            if known:
                y = [names.index(name) + aside for name in known]
                drawn.add_scatter(**_trace(one.name, known, leaky, place, look), y=y, xaxis=axis)


def _trace(name: str, known: dict[str, Change], leaky: bool, place: Any, look: int) -> dict[str, Any]:
    x = [place(change.nats) for change in known.values()]
    highs = [change.nats if change.high is None else change.high for change in known.values()]
    lows = [change.nats if change.low is None else change.low for change in known.values()]
    return {
        "name": drawing.text(f"{name}, leaky weights" if leaky else name),
        "x": x,
        "mode": "markers",
        "marker": drawing.mark(*MARKS[look], hollow=leaky),
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
