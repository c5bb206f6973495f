"""What each defect changes: repaired alone in the published protocol, put alone into the corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from analysis.figures import ladder
from analysis.figures.ladder import TITLES, Ladder, Rung
from analysis.figures.source import Source
from analysis.figures.style import SERIES
from analysis.report.blocks import Block, Chart, Heading, grid
from analysis.report.charts import drawing

#: Of a step's row are its models spread over this part.
HIGH = 0.74
#: What a reader of that many intervals must know.
MANY = (
    "The intervals are many and not adjusted for their number: some leave out zero by chance; the contrasts "
    "that were named before the runs are."
)


def blocks(source: Source, anchor: str) -> list[Block]:
    """A chart and a table a ladder. Raises MissingError where the plan names no steps."""
    found = ladder.data(source)
    made: list[Block] = []
    for name, rungs in found.rungs.items():
        title = TITLES.get(name, f"{name}: each change alone")
        made += [
            Heading(title),
            Chart(
                f"{anchor}-{name}",
                figure(found, rungs),
                f"Change of the validation NLL ({source.text}) against the same model as it is; left is "
                "better. Bars are 95 % intervals. Hollow: leaky weights, evaluated under a causal mask. "
                "Crosses at the right edge: a run diverged; triangles at the left: it no longer diverges. "
                f"{MANY}",
            ),
            _table(f"{anchor}-{name}-table", rungs),
        ]
    return made


def _table(anchor: str, rungs: Sequence[Rung]) -> Block:
    steps = list(dict.fromkeys(rung.step for rung in rungs))
    models = list(dict.fromkeys(rung.model for rung in rungs))
    bases = {rung.model: rung for rung in rungs if rung.change is None}
    said = {(rung.step, rung.model): words(rung, bases.get(rung.model)) for rung in rungs}
    rows = [[step, *(said.get((step, model), "") for model in models)] for step in steps]
    return grid(
        anchor,
        ["step", *models],
        rows,
        wide=True,
        caption="Change of validation perplexity, in % of the model's as it is, with its 95 % interval.",
    )


def words(rung: Rung, base: Rung | None = None) -> str:
    """What a step did to a model: "-7.7 % (-8.3 to -7.0)", "not resolved", "diverged" ...; ``base`` is
    the model as it is, to be named where one of both diverged."""
    if rung.same:
        return "does not concern it"
    if rung.change is None:
        return f"as it is; {_diverged(rung)}" if rung.diverged else "as it is"
    if rung.diverged or (base is not None and base.diverged):
        beside = f" (as it is: {base.n - base.ok} of {base.n})" if base is not None else ""
        return f"{_diverged(rung)}{beside}"
    if rung.change.nats == -math.inf:
        return "no longer diverges"
    return drawing.words(rung.change)


def _diverged(rung: Rung) -> str:
    return f"{rung.n - rung.ok} of {rung.n} diverged"


def figure(found: Ladder, rungs: Sequence[Rung]) -> Any:
    steps = list(dict.fromkeys(rung.step for rung in rungs))
    low, high = _limits(rungs)
    place, ticks = drawing.signed(low, high)
    left, right = place(low), place(high)
    margin = 0.12 * ((right - left) or 0.1)
    edges = min(left, 0.0) - margin, max(right, 0.0) + margin
    drawn = drawing.new(
        "change of validation NLL, nats a token (left is better)",
        "",
        height=150 + len(steps) * max(30, 13 * len(found.models)),
    )
    for index in range(1, len(steps), 2):
        band = {"fillcolor": "#f5f6f8", "line": {"width": 0}, "layer": "below"}
        drawn.add_hrect(y0=index - 0.5, y1=index + 0.5, **band)
    drawn.add_vline(x=0, line={"color": drawing.INK, "width": 1})
    for index, model in enumerate(found.models):
        own = [rung for rung in rungs if rung.model == model and not rung.same]
        base = next((rung for rung in own if rung.change is None), None)
        aside = HIGH * ((index + 0.5) / len(found.models) - 0.5)
        for trace in _traces(model, own, base, steps, aside, index, place, edges):
            drawn.add_scatter(**trace)
    drawn.update_xaxes(range=list(edges), **ticks)
    numbered = {"tickvals": list(range(len(steps))), "ticktext": [drawing.text(step) for step in steps]}
    drawn.update_yaxes(**numbered, range=[len(steps) - 0.5, -0.5], showgrid=False, ticks="")
    return drawn


def _traces(
    model: str,
    rungs: Sequence[Rung],
    base: Rung | None,
    steps: Sequence[str],
    aside: float,
    index: int,
    place: Callable[[float], float],
    edges: tuple[float, float],
) -> list[dict[str, Any]]:
    """A model's points by how they are marked: counted, leaky, diverged, no longer diverging."""
    colour, shape = SERIES[index % len(SERIES)]
    kinds: dict[str, list[Rung]] = {}
    for rung in rungs:
        if kind := _kind(rung):
            kinds.setdefault(kind, []).append(rung)
    marks = {
        "counted": drawing.mark(colour, shape),
        "leaky": drawing.mark(colour, shape, hollow=True),
        "diverged": {"symbol": "x-thin", "size": 9, "color": colour, "line": {"width": 2, "color": colour}},
        "no longer": {"symbol": "triangle-left", "size": 10, "color": colour},
    }
    traces = []
    for kind, members in kinds.items():
        x = [_x(rung, place, edges) for rung in members]
        trace: dict[str, Any] = {
            "name": drawing.text(model),
            "legendgroup": model,
            "showlegend": kind == next(iter(kinds)),
            "x": x,
            "y": [steps.index(rung.step) + aside for rung in members],
            "mode": "markers",
            "marker": marks[kind],
            "hovertext": [f"<b>{drawing.text(model)}</b>, {drawing.text(rung.step)}" for rung in members],
            "customdata": [drawing.text(words(rung, base)) for rung in members],
            "hovertemplate": "%{hovertext}<br>%{customdata}<extra></extra>",
        }
        ends = [(rung.change.low, rung.change.high) if rung.change else (None, None) for rung in members]
        if kind in ("counted", "leaky") and any(end[0] is not None for end in ends):
            trace["error_x"] = {
                "type": "data",
                "array": [
                    0 if end is None else place(end) - at for at, (_, end) in zip(x, ends, strict=True)
                ],
                "arrayminus": [
                    0 if end is None else at - place(end) for at, (end, _) in zip(x, ends, strict=True)
                ],
                "thickness": 1,
                "width": 3,
            }
        traces.append(trace)
    return traces


def _kind(rung: Rung) -> str:
    """How a point is marked; "" for what has no number and did not diverge."""
    nats = rung.change.nats if rung.change else 0.0
    if rung.diverged:
        return "diverged"
    if nats is None:
        return ""
    return "no longer" if nats == -math.inf else "leaky" if rung.leaky else "counted"


def _x(rung: Rung, place: Callable[[float], float], edges: tuple[float, float]) -> float:
    left, right = edges
    if rung.diverged:
        return right - 0.02 * (right - left)
    nats = (rung.change.nats if rung.change else 0.0) or 0.0
    return left + 0.02 * (right - left) if nats == -math.inf else place(nats)


def _limits(rungs: Sequence[Rung]) -> tuple[float, float]:
    changes = [rung.change for rung in rungs if rung.change]
    ends = [end for change in changes for end in (change.nats, change.low, change.high)]
    finite = [end for end in ends if end is not None and math.isfinite(end)]
    return min(finite, default=-0.1), max(finite, default=0.1)
