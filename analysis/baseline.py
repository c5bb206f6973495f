"""Every line against one that it may be measured by, with an interval where the seeds give one.

In a ladder that is the same model as it is; elsewhere the Transformer of the same protocol, scale,
width and context. Each group of lines with one such base is fitted by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from analysis.aggregate import Line, is_leaky
from analysis.aggregate import group_of as group_of
from analysis.inference import Estimate, differences
from analysis.ladder import BASE, Step, ladder, spreads
from analysis.plan import Plan
from analysis.render import Section
from analysis.rows import Row
from analysis.table import Table, section_of

TRANSFORMER = "Transformer"


def with_differences(table: Table, rows: Sequence[Row], plan: Plan | None) -> Table:
    """``table`` with columns ``against`` (what the line is held against), ``against_percent`` (its
    validation perplexity above that, in %), ``_low``, ``_high`` (95 %), ``_detectable`` and
    ``_resolved`` of lines whose runs give an estimate; the table itself if none does.

    Leaky runs count with their weights under a causal mask."""
    steps = ladder(rows, plan)
    found = _steps(steps) or _transformers(table.lines, rows)
    if not found:
        return table
    lines = [line | _columns(*found[line["variant_hash"]]) if line["variant_hash"] in found else line
             for line in table.lines]  # fmt: skip
    section: Section = section_of(lines)
    notes = (*table.notes, _note(lines), *spreads(steps))
    return replace(table, lines=tuple(lines), sections=(section,), notes=notes)


def _steps(steps: Sequence[Step]) -> dict[str, tuple[str, Estimate]]:
    """Of a ladder: what each variant is held against, and the difference. A variant that is a base
    of one ladder is held against nothing in another."""
    bases = {step.variant_hash for step in steps if step.is_base}
    return {
        step.variant_hash: (BASE, step.estimate)
        for step in reversed(steps)
        if step.estimate is not None and step.variant_hash not in bases
    }


def _transformers(lines: Sequence[Line], rows: Sequence[Row]) -> dict[str, tuple[str, Estimate]]:
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(group_of(line), []).append(line)
    found: dict[str, tuple[str, Estimate]] = {}
    for group in groups.values():
        bases = [line for line in group if line.get("architecture") == TRANSFORMER]
        if len(bases) != 1:
            continue
        own = {line["variant_hash"] for line in group}
        estimates = differences([row for row in rows if row["variant_hash"] in own], bases[0]["variant_hash"])
        found |= {
            variant: (TRANSFORMER, estimate)
            for variant, estimate in estimates.items()
            if isinstance(estimate, Estimate)
        }
    return found


def _columns(against: str, estimate: Estimate) -> Line:
    return {
        "against": against,
        "against_percent": estimate.percent,
        "against_percent_low": estimate.percent_low,
        "against_percent_high": estimate.percent_high,
        "against_percent_detectable": estimate.detectable_percent,
        "against_resolved": estimate.resolved,
    }


def _note(lines: Sequence[Line]) -> str:
    many = sum(line.get("against_percent") is not None for line in lines)
    in_ladder = any(line.get("against") == BASE for line in lines)
    what = "the same model as it is" if in_ladder else "the Transformer"
    leaky = ", of leaky weights under a causal mask" if any(map(is_leaky, lines)) else ""
    return (
        f"Against {what}: the difference in valid perplexity{leaky}, with its 95 % interval (each for "
        "itself; seeds as blocks, the residual variance pooled over variants). Not resolved: the interval "
        "includes zero; in brackets the smallest difference that these seeds could have shown (two-sided "
        "5 %, power 80 %). "
        f"These intervals are many ({many}) and not adjusted for it: by chance alone about one in twenty "
        "leaves out zero. Only contrasts named before the runs are judged."
    )
