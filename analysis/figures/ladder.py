"""What each defect changes: repaired alone in the published protocol, put alone into the corrected.

Changes are of mean negative log-likelihood on validation text; a leaky model's is that of the same
weights under a causal mask, since what it reaches by looking ahead is no likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures import style
from analysis.figures.changes import Change, estimated, of_means
from analysis.figures.source import MissingError, Source
from analysis.ladder import Step
from analysis.ladder import ladder as steps_of

TITLES = {
    "published": "published: each defect repaired alone",
    "corrected": "corrected: each defect put in alone",
}
#: Beyond this (nats) the axis is logarithmic, if anything lies far beyond it.
LINEAR, FAR = 0.1, 0.6
HIGH = 0.78  # of a step's row are its models spread over


@dataclass(frozen=True)
class Rung:
    """One step of one model, against the same model as it is (``change``; None for the base itself).
    ``same``: the step changes nothing in this model, such as a mask in a RetNet."""

    step: str
    model: str
    variant_hash: str
    change: Change | None
    leaky: bool
    same: bool
    n: int
    ok: int

    @property
    def diverged(self) -> bool:
        return self.ok < self.n


@dataclass(frozen=True)
class Ladder:
    """``rungs`` by ladder, in the order of the sweep, bases (step "as it is") included."""

    rungs: dict[str, tuple[Rung, ...]]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rung.model for found in self.rungs.values() for rung in found))


def data(source: Source) -> Ladder:
    """The steps that the plan names, where they have rows. Raises MissingError without any."""
    steps = steps_of(source.rows, source.plan)
    if not any(not step.is_base for step in steps):
        raise MissingError("its plan.json names no steps of a ladder (+sweep=defects does)")
    lines = {line["variant_hash"]: line for line in source.table.lines}
    found: dict[str, list[Rung]] = {}
    for step in steps:
        base = lines.get(step.base_hash) if step.base_hash else None
        rung = Rung(
            step=step.step,
            model=step.architecture,
            variant_hash=step.variant_hash,
            change=None if step.is_base else _change(step, base),
            leaky=step.leaky,
            same=not step.is_base and step.variant_hash == step.base_hash,
            n=step.line["n"],
            ok=step.line["ok"],
        )
        found.setdefault(step.ladder, []).append(rung)
    return Ladder({name: tuple(rungs) for name, rungs in found.items()})


def _change(step: Step, base: dict[str, Any] | None) -> Change:
    if step.estimate is not None:
        return estimated(step.estimate)
    if base is None:
        return Change(None, why=step.why or "the model as it is has no rows")
    return of_means(step.line, base, step.why)


def draw(found: Ladder) -> Any:
    """A panel per ladder: steps down, models beside each other within a step."""
    longest = max(len({rung.step for rung in rungs}) for rungs in found.rungs.values())
    height = 1.3 + longest * max(0.3, 0.115 * len(found.models))
    figure, grid = style.new(5.0 * len(found.rungs) + 0.4, height, 1, len(found.rungs))
    for axis, (name, rungs) in zip(grid[0], found.rungs.items(), strict=True):
        _panel(axis, rungs, found.models)
        axis.set_title(TITLES.get(name, f"{name}: each change alone"))
    style.legend(figure, list(grid[0]))
    return figure


def _panel(axis: Any, rungs: Sequence[Rung], models: Sequence[str]) -> None:
    steps = list(dict.fromkeys(rung.step for rung in rungs))
    low, high = _limits(rungs)
    _scale(axis, low, high)
    axis.axvline(0, color="0.3", linewidth=0.8, zorder=1)
    for index in range(1, len(steps), 2):
        axis.axhspan(index - 0.5, index + 0.5, color="0.95", linewidth=0, zorder=0)
    for rung in rungs:
        if rung.same:
            continue
        place = models.index(rung.model)
        y = steps.index(rung.step) + HIGH * ((place + 0.5) / len(models) - 0.5)
        _dot(axis, rung, y, *style.SERIES[place % len(style.SERIES)])
    _keys(axis, rungs, models)
    axis.set_yticks(range(len(steps)), steps)
    axis.set_ylim(len(steps) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("change of validation NLL, nats a token (left is better)")


def _dot(axis: Any, rung: Rung, y: float, colour: str, marker: str) -> None:
    """Where the change is; at the right edge what diverges, at the left what no longer does."""
    edge = axis.get_yaxis_transform()  # x in parts of the axis
    look = {"color": colour, "marker": marker, "markersize": 4.5, "linestyle": "none", "clip_on": False}
    look["markerfacecolor"] = "white" if rung.leaky else colour
    nats = rung.change.nats if rung.change else 0.0
    if rung.diverged:
        axis.plot([0.985], [y], transform=edge, **look)
        axis.plot([0.985], [y], "x", transform=edge, color="0.1", markersize=7, clip_on=False)
        if rung.ok:
            some = f"{rung.n - rung.ok} of {rung.n}"
            axis.text(0.965, y, some, transform=edge, ha="right", va="center_baseline", fontsize=6.5)
    elif nats == -math.inf:
        axis.plot([0.015], [y], transform=edge, **look)
        axis.plot([0.045], [y], "<", transform=edge, color="0.1", markersize=3.5)
    elif nats is not None:
        low, high = (rung.change.low, rung.change.high) if rung.change else (None, None)
        error = [[nats - low], [high - nats]] if low is not None and high is not None else None
        axis.errorbar([nats], [y], xerr=error, elinewidth=0.8, **look)


def _keys(axis: Any, rungs: Sequence[Rung], models: Sequence[str]) -> None:
    for place, model in enumerate(models):
        colour, marker = style.SERIES[place % len(style.SERIES)]
        style.key(axis, model, marker, colour)
    if any(rung.leaky for rung in rungs):
        style.key(axis, "hollow: leaky, evaluated causally", "o", "0.3", markerfacecolor="white")
    if any(rung.diverged for rung in rungs):
        style.key_diverged(axis)
    if any(rung.change and rung.change.nats == -math.inf for rung in rungs):
        style.key(axis, "no longer diverges", "<", "0.1", markersize=3.5)


def _limits(rungs: Sequence[Rung]) -> tuple[float, float]:
    changes = [rung.change for rung in rungs if rung.change]
    ends = [end for change in changes for end in (change.nats, change.low, change.high)]
    finite = [end for end in ends if end is not None and math.isfinite(end)]
    return min(finite, default=-0.1), max(finite, default=0.1)


def _scale(axis: Any, low: float, high: float) -> None:
    """Linear, with room at both edges for what has no number; beyond FAR logarithmic outside of
    LINEAR, so that small changes can be read beside large ones."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, SymmetricalLogLocator

    if max(-low, high) <= FAR:
        margin = 0.12 * ((high - low) or 0.1)
        axis.set_xlim(min(low, 0.0) - margin, max(high, 0.0) + margin)
        return
    axis.set_xscale("symlog", linthresh=LINEAR)
    axis.set_xlim(2.5 * min(low, -LINEAR / 2), 2.5 * max(high, LINEAR / 2))
    axis.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR, subs=(1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
