"""The front as a table, and what each bucket of like MACs gives to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.columns import measured, number, runs
from analysis.figures import pareto
from analysis.figures.source import METRIC, Source
from analysis.front import Front, Member, buckets, front_of, objectives
from analysis.report.blocks import Block, Cell, Grid, GridRow, Head, Words

UNIT, PREFIX = 1e6, "M"
ON, OFF = "on it", ""


def blocks(source: Source, anchor: str) -> list[Block]:
    """Raises MissingError where perplexity cannot be weighed against a cost."""
    pareto.weighable(source)
    columns = objectives(source)
    whole = front_of(source, columns)
    titles = {cost: _title(cost) for cost in columns[1:]}
    pairs = {cost: front_of(source, (METRIC, cost)) for cost in columns[1:]} if len(columns) > 2 else {}
    found: list[Block] = [_models(whole, pairs, titles, anchor), Words(tuple(_said(whole, pairs, titles)))]
    if buckets(whole) > 1:
        found.append(_buckets(whole, anchor))
    return found


def _title(cost: str) -> str:
    context = cost.removeprefix("macs_decode_")
    return f"decoding at {int(context):,}" if context.isdigit() else "training"


def _models(whole: Front, pairs: Mapping[str, Front], titles: Mapping[str, str], anchor: str) -> Grid:
    """A row a model of the front, the lowest perplexity first."""
    known = {cost: {one.line["variant_hash"] for one in front.on_front} for cost, front in pairs.items()}
    costs = whole.columns[1:]
    heads = [
        Head("model"),
        Head("valid\nppl", True, METRIC),
        *(Head(f"{PREFIX}MACs,\n{titles[cost]}", True, cost) for cost in costs),
        Head("bucket", True, "of MACs of a training forward, 1 the cheapest"),
        *(Head(f"front of ppl,\n{titles[cost]}", False, "of these two alone") for cost in pairs),
        Head("seeds", True, "runs that the line stands on"),
    ]
    perplexity = measured("", METRIC)
    rows = [
        GridRow(
            (
                Cell(one.label),
                Cell(perplexity.cell(one.line), one.values[0]),
                *(Cell(number(value / UNIT), value) for value in one.values[1:]),
                Cell(str(one.bucket + 1), one.bucket),
                *(Cell(ON if one.line["variant_hash"] in known[cost] else OFF) for cost in pairs),
                Cell(runs(one.line), one.line["ok"]),
            )
        )
        for one in whole.on_front
    ]
    caption = (
        f"{len(whole.on_front)} of {len(whole.members)} models are on the front of {_names(costs, titles)}: "
        "no other is as good in each of these and better in one. By the means over seeds: whether two "
        "neighbours can be told apart, the intervals say."
    )
    return Grid(f"{anchor}-table", tuple(heads), tuple(rows), caption, sortable=True)


def _names(costs: Sequence[str], titles: Mapping[str, str]) -> str:
    return " and ".join(["validation perplexity", *(f"MACs ({titles[cost]})" for cost in costs)])


def _said(whole: Front, pairs: Mapping[str, Front], titles: Mapping[str, str]) -> list[str]:
    every = "; ".join(
        f"of perplexity and {titles[cost]} alone {front.share:.3f} ({len(front.on_front)} on the front)"
        for cost, front in pairs.items()
    )
    said = [
        f"Hypervolume {whole.share:.3f}: the part that the front dominates of the box from the best value of "
        "each column to a tenth beyond the worst, in logarithms" + (f"; {every}." if every else ".")
    ]
    said += [f"Not compared, {why}: {', '.join(labels)}." for why, labels in whole.left_out.items()]
    return said


def _buckets(whole: Front, anchor: str) -> Grid:
    rows = []
    for bucket in range(buckets(whole)):
        members = [one for one in whole.members if one.bucket == bucket]
        low, high = whole.edges[bucket], whole.edges[bucket + 1]
        best = min(members, key=lambda one: one.values) if members else None
        rows.append(
            GridRow(
                (
                    Cell(str(bucket + 1)),
                    Cell(f"{number(low / UNIT)} to {number(high / UNIT)}"),
                    Cell(str(len(members))),
                    Cell(str(_count(members))),
                    Cell(f"{best.label}: {number(best.values[0])}" if best else "none"),
                    Cell(f"{whole.share_of(bucket):.3f}"),
                )
            )
        )
    heads = (
        Head("bucket", True),
        Head(f"{PREFIX}MACs of a\ntraining forward", True),
        Head("models", True),
        Head("on the\nfront", True),
        Head("lowest perplexity"),
        Head("hypervolume\nby itself", True),
    )
    caption = (
        "Buckets of MACs, of equally many models as far as these differ. Successive halving compares a model "
        "with those of its own bucket alone; the front above is of all of them."
    )
    return Grid(f"{anchor}-buckets", heads, tuple(rows), caption)


def _count(members: Sequence[Member]) -> int:
    return sum(one.on_front for one in members)
