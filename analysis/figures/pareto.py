"""Cost against perplexity, with the front, under each cost convention.

The report's own points stand in a panel of their own: other scale, other text, and a perplexity of
training batches under a mask that leaks cannot share an axis with ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from analysis.aggregate import Line
from analysis.columns import contexts
from analysis.figures import labels, marks, style
from analysis.figures.source import (
    MissingError,
    Point,
    Reference,
    Source,
    common,
    family,
    is_number,
    point,
    references,
)

TITLES = {
    "macs_train_forward": "training forward, counted in full",
    "macs_published": "as the report counted",
    "macs_fvcore": "traced by fvcore",
}
#: Drawn unless others are chosen, in this order, where the study has them.
SHOWN = ("macs_train_forward", "macs_decode_2048")


@dataclass(frozen=True)
class Convention:
    """A cost column, and what an axis says of it; ``per`` is what the MACs are for."""

    column: str
    title: str
    per: str


@dataclass(frozen=True)
class ReportPoint:
    """A model of the report, as printed: GMACs, and perplexity of 40 training batches."""

    architecture: str
    family: str
    gmacs: float
    train_ppl: float


@dataclass(frozen=True)
class Pareto:
    """One convention. ``x`` of the points is in MACs; ``left_out`` names lines without one count."""

    convention: Convention
    points: tuple[Point, ...]
    references: tuple[Reference, ...]
    report: tuple[ReportPoint, ...]
    left_out: tuple[str, ...]
    text: str

    @property
    def unit(self) -> tuple[float, str]:
        """What to divide MACs by, and how that unit is called."""
        return unit([point.x for point in self.points])

    @property
    def front(self) -> tuple[Point, ...]:
        """The points of the front, the cheapest first."""
        return tuple(sorted((point for point in self.points if point.front), key=lambda point: point.x))


def data(source: Source) -> tuple[Pareto, ...]:
    """The study under every convention that it counted. Raises MissingError."""
    lines = weighable(source)
    found = [_pareto(source, lines, convention) for convention in conventions(lines)]
    if not any(panel.points for panel in found):
        raise MissingError("no line has both a validation perplexity and a count of MACs")
    return tuple(panel for panel in found if panel.points)


def weighable(source: Source) -> list[Line]:
    """The trained lines, if what they differ in can be weighed against a cost. Raises MissingError."""
    lines = source.trained()
    if source.plan and any("step" in member.said for member in source.plan.members):
        raise MissingError("its variants are steps of a ladder, which differ in training and not in cost")
    for column in ("protocol", "context"):
        if len({line.get(column) for line in lines}) > 1:
            raise MissingError(f"its lines differ in {column}, which is no choice to weigh against a cost")
    return lines


def conventions(lines: Sequence[Line]) -> tuple[Convention, ...]:
    """The conventions that any line was counted under: training, then decoding."""
    context = common(lines, "context")
    sequence = f"a sequence of {context:,} tokens" if isinstance(context, int) else "a sequence"
    found = [Convention(column, title, sequence) for column, title in TITLES.items()]
    found += [
        Convention(
            f"macs_train_chunkwise_{n}",
            "training forward, retention in chunks",
            f"a sequence of {n:,} tokens",
        )
        for n in contexts(lines, "macs_train_chunkwise_")
    ]
    found += [
        Convention(f"macs_decode_{n}", f"decoding at context {n:,}", "a token")
        for n in contexts(lines, "macs_decode_")
    ]
    return tuple(kind for kind in found if any(line.get(kind.column) is not None for line in lines))


def front(points: Sequence[Point]) -> set[str]:
    """The variant hashes of the points that none beats in cost and perplexity at once.

    By the means: whether a difference is resolved, the intervals and the table say. Leaky and
    diverged points are not compared.
    """
    best, found = math.inf, set()
    for candidate in sorted((p for p in points if p.ranked), key=lambda p: (p.x, p.y)):
        if candidate.y < best:
            best = candidate.y
            found.add(candidate.variant_hash)
    return found


def unit(macs: Sequence[float]) -> tuple[float, str]:
    """GMACs where the largest is at least one, else MMACs."""
    return (1e9, "GMACs") if max(macs, default=0) >= 1e9 else (1e6, "MMACs")


def _pareto(source: Source, lines: Sequence[Line], convention: Convention) -> Pareto:
    counted = [line for line in lines if is_number(line.get(convention.column))]
    points = [point(line, line[convention.column]) for line in counted]
    best = front(points)
    return Pareto(
        convention=convention,
        points=tuple(dataclasses.replace(p, front=p.variant_hash in best) for p in points),
        references=references(source),
        report=_reported(lines),
        left_out=tuple(str(line["label"]) for line in lines if line not in counted),
        text=source.text,
    )


def _reported(lines: Sequence[Line]) -> tuple[ReportPoint, ...]:
    """The report's models that ``lines`` have counterparts of, each once: several widths have one."""
    found = [
        ReportPoint(str(line["architecture"]), family(line), line["report_gmacs"], line["report_train_ppl"])
        for line in lines
        if line.get("report_gmacs") is not None
    ]
    return tuple(dict.fromkeys(found))


def draw(found: Sequence[Pareto], shown: Sequence[str] = ()) -> Any:
    """Panels of ``shown`` columns (default: training and decoding), the report's points beside."""
    by_column = {panel.convention.column: panel for panel in found}
    wanted = [column for column in (shown or SHOWN) if column in by_column] or [next(iter(by_column))]
    panels = [by_column[column] for column in wanted]
    report = panels[0].report
    widths = [1.0] * len(panels) + ([0.72] if report else [])
    figure, grid = style.new(3.9 * sum(widths), 4.0, 1, len(widths), width_ratios=widths)
    axes = grid[0, : len(panels)]
    for axis in axes[1:]:
        axis.sharey(axes[0])
        axis.tick_params(labelleft=False)
    ceiling = marks.set_limits(axes[0], [p for panel in panels for p in panel.points])
    axes[0].set_ylabel(f"validation perplexity ({panels[0].text})")
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, panel, ceiling)
    if report:
        _report(grid[0, -1], report)
    style.legend(figure, axes)
    for axis, panel in zip(axes, panels, strict=True):
        scale, _ = panel.unit
        labels.place(
            axis,
            [(p.x / scale, p.y, _short(p)) for p in panel.front],
            [*marks.extent(panel.points, ceiling, scale), *_along(panel.front, scale)],
        )
    return figure


def _panel(axis: Any, panel: Pareto, ceiling: float) -> None:
    scale, name = panel.unit
    corners = panel.front
    if corners:
        axis.step(
            [p.x / scale for p in corners],
            [p.y for p in corners],
            where="post",
            color=style.FAINT,
            linewidth=2.5,
            zorder=1,
            label="front of the means",
        )
    marks.points(axis, panel.points, ceiling, scale)
    axis.set_title(panel.convention.title)
    axis.set_xlabel(f"{name} {panel.convention.per}")


def _short(point: Point) -> str:
    """What the marker does not say: of "Type A 10:2 (lr 0.003)" that is "10:2 (lr 0.003)"."""
    return point.label.removeprefix(point.family).strip()


def _along(corners: Sequence[Point], scale: float, steps: int = 8) -> list[tuple[float, float]]:
    """Points on the front's line, for names to keep off."""
    found = []
    for left, right in pairwise(corners):
        for step in range(steps + 1):
            part = step / steps
            found.append(((left.x + part * (right.x - left.x)) / scale, left.y))
            found.append((right.x / scale, left.y + part * (right.y - left.y)))
    return found


def _report(axis: Any, report: Sequence[ReportPoint]) -> None:
    """Faint and apart, on axes of their own."""
    for model in report:
        colour, marker, _ = style.FAMILY[model.family]
        axis.plot(
            model.gmacs, model.train_ppl, marker, color=colour, alpha=0.45, markersize=4.5, markeredgewidth=0
        )
    style.plain_log(axis)
    axis.set_title("as the report printed it:\nnot comparable", color=style.GREY)
    axis.set_xlabel("its GMACs a sequence", color=style.GREY)
    axis.set_ylabel("its perplexity of 40 training batches", color=style.GREY)
    axis.tick_params(colors=style.GREY, which="both")
    axis.set_facecolor("0.97")
