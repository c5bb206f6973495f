"""Differences of mean negative log-likelihood, with an interval where the seeds give one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.aggregate import Line
from analysis.baseline import group_of
from analysis.figures.source import CAUSAL_METRIC, METRIC, Source, is_number
from analysis.inference import Estimate, Model, NoInference, fit
from analysis.rows import Row

Group = tuple[Any, ...]


@dataclass(frozen=True)
class Change:
    """``nats`` a token, left minus right, below zero if left is better: infinite where left
    diverged, minus infinite where right did, None where that cannot be said. ``low`` and ``high``
    bound the 95 % interval; without one they are None, and ``why`` says the reason."""

    nats: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""

    @property
    def percent(self) -> float | None:
        """By how much the left perplexity is above the right one, in %."""
        return None if self.nats is None else 100 * math.expm1(min(self.nats, 700.0))


def models(source: Source) -> dict[Group, tuple[Model | None, str]]:
    """The fits behind the intervals of the study, one a group of lines as the table's intervals have
    them (protocol, scale, width, context); None and the reason where the seeds bear none."""
    groups = {line["variant_hash"]: group_of(line) for line in source.table.lines}
    rows: dict[Group, list[Row]] = {}
    for row in source.rows:
        if row["variant_hash"] in groups:  # a table of counts leaves reference lines out
            rows.setdefault(groups[row["variant_hash"]], []).append(row)
    return {group: _fit(own) for group, own in rows.items()}


def _fit(rows: Sequence[Row]) -> tuple[Model | None, str]:
    try:
        return fit(rows), ""
    except NoInference as none:
        return None, str(none)


def compare(fitted: Model | None, why: str, left: Line, right: Line) -> Change:
    """``left`` minus ``right``; without a fit, of the lines' means and without an interval."""
    if fitted is not None:
        try:
            return estimated(fitted.difference(str(left["variant_hash"]), str(right["variant_hash"])))
        except NoInference as none:
            why = str(none)
    return of_means(left, right, why)


def estimated(estimate: Estimate) -> Change:
    return Change(estimate.nats, estimate.low, estimate.high)


def of_means(left: Line, right: Line, why: str) -> Change:
    """The difference of what the two lines have, diverged ones being infinite."""
    values = [likelihood(line) for line in (left, right)]
    if values[0] is None or values[1] is None:
        return Change(None, why=why or "a leaky perplexity is no likelihood")
    if math.isinf(values[0]) and math.isinf(values[1]):
        return Change(None, why="both diverged")
    return Change(values[0] - values[1], why=why)


def likelihood(line: Line) -> float | None:
    """Mean negative log-likelihood a token, from a causal evaluation where the line is leaky;
    infinite if it diverged."""
    if line["ok"] < line["n"]:
        return math.inf
    value = line.get(CAUSAL_METRIC if line.get("leaky") else METRIC)
    return math.log(value) if is_number(value) and value > 0 else None
