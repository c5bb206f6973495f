"""The Pareto front of a study over two or three columns of its rows, all minimised.

``python -m analysis.front [STUDY ...] [--by=COLUMN,COLUMN[,COLUMN]]`` prints it. Lines are compared by their
means; leaky and diverged ones, and models that mix nothing, are on no front. Successive halving compares
perplexities within buckets of like MACs: a front is assembled across them, and each line says its bucket.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis import command
from analysis.aggregate import Line, is_leaky, is_quality
from analysis.columns import number
from analysis.figures.source import METRIC, MissingError, Source, is_number, open_source
from analysis.hypervolume import OBJECTIVES, Box, Point, box, is_measurable, nondominated
from analysis.rows import TableError

USAGE = "usage: python -m analysis.front [STUDY ...] [--by=COLUMN,COLUMN[,COLUMN]]"
COST = "macs_train_forward"
#: What is weighed against the perplexity unless columns are named, where the rows have it.
COSTS = (COST, "macs_decode_2048")
BUCKETS = 4


@dataclass(frozen=True)
class Member:
    """A line that is compared: ``values`` by objective, ``bucket`` from 0 (the cheapest)."""

    line: Line
    values: Point
    bucket: int
    on_front: bool

    @property
    def label(self) -> str:
        return str(self.line["label"])


@dataclass(frozen=True)
class Front:
    """``members`` are all lines that are compared, the cheapest bucket first; ``share`` is the part of the
    ``box`` of all of them that they dominate. ``edges`` of the buckets in MACs, one more than there are
    buckets. ``left_out``: why -> labels."""

    columns: tuple[str, ...]
    members: tuple[Member, ...]
    box: Box
    share: float
    edges: tuple[float, ...]
    left_out: Mapping[str, tuple[str, ...]]

    @property
    def on_front(self) -> tuple[Member, ...]:
        """The best by the first objective first."""
        return tuple(sorted((one for one in self.members if one.on_front), key=lambda one: one.values))

    def share_of(self, bucket: int) -> float:
        """What the members of one bucket dominate by themselves."""
        return self.box.share([one.values for one in self.members if one.bucket == bucket])


def front_of(source: Source, columns: Sequence[str], count: int = BUCKETS) -> Front:
    """The front of a study's lines. Raises TableError for columns that are no two or three objectives,
    MissingError if no line has them all."""
    check_objectives(columns)
    left_out: dict[str, list[str]] = {}
    kept: list[Line] = []
    for line in source.lines:
        why = _refused(line, columns)
        if why is None:
            kept.append(line)
        else:
            left_out.setdefault(why, []).append(str(line["label"]))
    if not kept:
        raise MissingError(f"no line can be ranked by {' and '.join(columns)}")
    values = [tuple(float(line[column]) for column in columns) for line in kept]
    on_front = nondominated(values)
    edges = bucket_edges([float(line[COST]) for line in kept if is_number(line.get(COST))], count)
    members = [
        Member(line, point, bucket_of(line.get(COST), edges), best)
        for line, point, best in zip(kept, values, on_front, strict=True)
    ]
    around = box(values)
    return Front(
        columns=tuple(columns),
        members=tuple(sorted(members, key=lambda one: (one.bucket, one.values))),
        box=around,
        share=around.share(values),
        edges=edges,
        left_out={why: tuple(labels) for why, labels in left_out.items()},
    )


def objectives(source: Source) -> tuple[str, ...]:
    """The columns that a study is judged by unless others are named: perplexity, MACs of a training
    forward and of decoding, as far as every trained line has them. Raises MissingError without a cost."""
    lines = source.trained()
    costs = [column for column in COSTS if all(is_number(line.get(column)) for line in lines)]
    if not costs:
        raise MissingError(f"not every trained line has a {' or a '.join(COSTS)}")
    return (METRIC, *costs)


def check_objectives(columns: Sequence[str]) -> None:
    """Raises TableError unless they are two or three, each once."""
    if len(columns) not in OBJECTIVES or len(set(columns)) != len(columns) or not all(columns):
        raise TableError(
            f"--by={','.join(columns)} is not accepted; accepted: two or three columns of the rows, each "
            f"once and all minimised, as {METRIC},{COST}"
        )


def bucket_edges(costs: Sequence[float], count: int = BUCKETS) -> tuple[float, ...]:
    """The edges of ``count`` buckets of equally many of ``costs``, from the least to the most: quantiles, as
    a search draws them. Fewer buckets where too many cost the same; empty without any costs."""
    if not costs:
        return ()
    ordered = sorted(costs)
    between = (ordered[len(ordered) * place // count] for place in range(1, count))
    inner = sorted({edge for edge in between if ordered[0] <= edge < ordered[-1]})
    return (ordered[0], *inner, ordered[-1])


def bucket_of(cost: object, edges: Sequence[float]) -> int:
    """Counted from 0; what costs as much as an edge is below it, and the last bucket has no end."""
    if not is_number(cost):
        return 0
    return sum(1 for edge in edges[1:-1] if cost > edge)


def _refused(line: Line, columns: Sequence[str]) -> str | None:
    """Why a line is not compared; None if it is."""
    qualities = [column for column in columns if is_quality(column)]
    if qualities and is_leaky(line):
        return "looks ahead: its perplexity is no likelihood"
    if line["ok"] < line["n"]:
        return "a run of it diverged"
    missing = [column for column in columns if not is_number(line.get(column))]
    if missing:
        return f"has no {' and no '.join(missing)}"
    if not is_measurable(tuple(float(line[column]) for column in columns)):
        return "has a value that is not above 0 and finite"
    return None


# ---- the command -----------------------------------------------------------------------------
def text(front: Front, name: str) -> str:
    """The front as lines of a terminal."""
    best = front.on_front
    widths = [max(len(one.label) for one in best), *(max(len(column), 10) for column in front.columns)]
    head = [f"{'model':<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(front.columns, widths[1:], strict=True))]
    said = [
        f"{name}: {len(best)} of {len(front.members)} models are on the front of {', '.join(front.columns)}; "
        f"hypervolume {front.share:.4f} of the box of all of them",
        "  ".join([*head, "bucket"]),
    ]
    for one in best:
        cells = [f"{number(v):>{w}}" for v, w in zip(one.values, widths[1:], strict=True)]
        said.append("  ".join([f"{one.label:<{widths[0]}}", *cells, f"{one.bucket + 1} of {buckets(front)}"]))
    said += [f"not compared ({why}): {', '.join(labels)}" for why, labels in front.left_out.items()]
    return "\n".join(said)


def buckets(front: Front) -> int:
    return max(1, len(front.edges) - 1)


def main(arguments: Sequence[str]) -> int:
    """The command: 0, 1 with one line on standard error, 2 for bad arguments."""
    studies = [one for one in arguments if not one.startswith("--by=")]
    given = [tuple(one.removeprefix("--by=").split(",")) for one in arguments if one.startswith("--by=")]
    if any(one.startswith("-") for one in studies):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        for columns in given:
            check_objectives(columns)
    except TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def show(folder: Path) -> None:
        source = open_source(folder)
        try:
            print(text(front_of(source, given[-1] if given else objectives(source)), source.name))
        except MissingError as error:
            raise TableError(f"{folder}: {error}") from error

    return command.run_each("analysis.front", studies, show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
