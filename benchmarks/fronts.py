"""``python -m benchmarks.fronts GRID SEARCH``: two studies' fronts at equal trained steps.

Each study's hypervolume grows with the steps that it trained, runs counted in the order in which they ended;
steps of runs that stopped at a rung, diverged or broke off count too. At the steps that both have trained it
says which front dominates the other. Beside the order in which runs ended stand orders drawn at random: a
grid's own order is that of its file. Of a variant with several seeds the first counts alone, since a search
trains a proposal once. Exit status 2 for what cannot be compared.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.front import check_objectives
from analysis.hypervolume import Box, Point, box, nondominated
from analysis.rows import Row, TableError, find_study
from benchmarks.candidates import SAME, objectives, rows_of, values_of
from benchmarks.halving import shown
from benchmarks.ledger import Trained, ledger

#: Parts of the steps that both studies trained, at which hypervolumes are printed.
PARTS = (0.25, 0.5, 0.75, 1.0)
#: What must be the same in both, beside what must be within one.
SHARED = (*SAME, "tokenizer", "vocabulary")


@dataclass(frozen=True)
class Step:
    """Part of a study: ``steps`` that it trained there, and what that gave, None for no whole run."""

    steps: int
    values: Point | None


@dataclass(frozen=True)
class Studied:
    """``parts`` in order; ``timed``: by time, not by the place of rows. ``dropped`` runs are of further
    seeds, ``partial`` ones have no row."""

    name: str
    parts: tuple[Step, ...]
    timed: bool
    rows: tuple[Row, ...]
    dropped: int

    @property
    def steps(self) -> int:
        return sum(part.steps for part in self.parts)

    @property
    def partial(self) -> int:
        return sum(part.values is None for part in self.parts)

    def points(self, steps: int, order: Sequence[Step] | None = None) -> list[Point]:
        """What is known once ``steps`` are trained."""
        found, trained = [], 0
        for part in self.parts if order is None else order:
            trained += part.steps
            if trained > steps:
                break
            if part.values is not None:
                found.append(part.values)
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    try:
        columns = tuple(given.by.split(",")) if given.by else ()
        if columns:
            check_objectives(columns)
        if given.orders < 2:
            raise TableError(f"--orders={given.orders} is not accepted; accepted: 2 or more")
        read = [_read(name, given.storage) for name in (given.first, given.second)]
        if read[0][0] == read[1][0]:  # runs/x beside results/x
            read = [(name, *rest) for name, (_, *rest) in zip((given.first, given.second), read, strict=True)]
        check_same([rows for _, _, rows, _ in read], [name for name, *_ in read])
        by = columns or objectives([row for _, _, rows, _ in read for row in rows])
        studies = [studied(*one, by) for one in read]
        print("\n".join(told(studies[0], studies[1], by, given.orders)))
    except TableError as error:
        print(f"benchmarks.fronts: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fronts", description="Two studies' fronts at equal trained steps."
    )
    parser.add_argument("first", metavar="STUDY", help="a folder, or a name under runs/: the grid")
    parser.add_argument("second", metavar="STUDY", help="the search")
    parser.add_argument("--by", help="two or three columns, minimised (default: perplexity, MACs)")
    parser.add_argument("--orders", type=int, default=20, help="drawn of each study's runs (default: 20)")
    parser.add_argument(
        "--storage", help="database of both (default: RETSWEEP_STORAGE, else study.db of each folder)"
    )
    return parser.parse_args(arguments)


def _read(name: str, storage: str | None) -> tuple[str, list[Trained], list[Row], bool]:
    folder = find_study(name)
    runs, timed = ledger(folder, storage)
    return folder.resolve().name, runs, rows_of([one.row for one in runs if one.row], folder.name), timed


def check_same(rows: Sequence[Sequence[Row]], names: Sequence[str]) -> None:
    """Raises TableError if a step, or a perplexity, of one study is not one of the other."""
    for column in SHARED:
        known = [{row[column] for row in each if row.get(column) is not None} for each in rows]
        if all(known) and known[0] != known[1]:
            said = " and ".join(f"{', '.join(map(str, v))} ({n})" for v, n in zip(known, names, strict=True))
            raise TableError(
                f"their {column} differs: {said}; fronts are compared on the same text and steps"
            )


def studied(
    name: str, runs: Sequence[Trained], rows: Sequence[Row], timed: bool, by: Sequence[str]
) -> Studied:
    """The first seed of every variant, and what has no row."""
    known = {row["spec_hash"]: row for row in rows}
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        first.setdefault(row["variant_hash"], row)
    kept = {row["spec_hash"] for row in first.values()}
    parts = [
        Step(one.steps, values_of(known[one.hash], by) if one.hash in kept else None)
        for one in runs
        if one.hash in kept or (one.row is None and one.steps)
    ]
    return Studied(name, tuple(parts), timed, tuple(first.values()), len(rows) - len(first))


# ---- what is printed -------------------------------------------------------------------------
def told(first: Studied, second: Studied, by: Sequence[str], orders: int) -> list[str]:
    around = box([part.values for each in (first, second) for part in each.parts if part.values])
    both = min(first.steps, second.steps)
    lines = [_counted(each) for each in (first, second)]
    lines.append(
        f"hypervolume of {', '.join(by)}: the part of the box of both studies' runs that is dominated, in "
        "logarithms"
    )
    lines.append("")
    marks = [round(part * both) for part in PARTS]
    lines.append(f"{'after steps':<34}" + "".join(f"{steps:>20,}" for steps in marks))
    for each in (first, second):
        cells = [f"{around.share(each.points(steps)):.4f}" for steps in marks]
        lines.append(f"{each.name[:33]:<34}" + "".join(f"{cell:>20}" for cell in cells))
        drawn = [shown(_random(each, around, steps, orders), "{:.4f}") for steps in marks]
        lines.append(f"{f'  in {orders} random orders':<34}" + "".join(f"{cell:>20}" for cell in drawn))
    lines += ["", verdict(first, second, both, around)]
    lines += [reached(one, other, around) for one, other in ((first, second), (second, first))]
    return lines


def _counted(each: Studied) -> str:
    whole = len(each.parts) - each.partial
    said = [f"{whole} whole runs", f"{each.partial} without a front's value (stopped, diverged, broken off)"]
    if each.dropped:
        said.append(f"{each.dropped} runs of further seeds left out")
    order = "by the time at which they ended" if each.timed else "in the order of its rows"
    return f"{each.name}: {each.steps:,} steps; {'; '.join(said)}; {order}"


def _random(each: Studied, around: Box, steps: int, orders: int) -> list[float]:
    found = []
    for seed in range(orders):
        order = list(each.parts)
        random.Random(seed).shuffle(order)
        found.append(around.share(each.points(steps, order)))
    return found


def verdict(first: Studied, second: Studied, steps: int, around: Box) -> str:
    """Which front dominates the other once both have trained ``steps``."""
    a, b = first.name, second.name
    points_a, points_b = _front(first.points(steps)), _front(second.points(steps))
    counts = (
        f"{_against(a, points_a, b, points_b)}; {_against(b, points_b, a, points_a)}; hypervolume "
        f"{around.share(points_a):.4f} and {around.share(points_b):.4f}"
    )
    over_a, over_b = covers(points_b, points_a), covers(points_a, points_b)
    if over_a == over_b:
        same = "both fronts are the same" if over_a else "neither front dominates the other"
        return f"at {steps:,} steps {same}: {counts}"
    better, worse = (b, a) if over_a else (a, b)
    return (
        f"at {steps:,} steps {better}'s front dominates {worse}'s, nowhere worse and not the same: {counts}"
    )


def _against(name: str, points: Sequence[Point], other: str, by: Sequence[Point]) -> str:
    equal = sum(point in by for point in points)
    return f"of {len(points)} models on {name}'s front {beaten(points, by)} are dominated by {other}'s" + (
        f" and {equal} are on it too" if equal else ""
    )


def _front(points: Sequence[Point]) -> list[Point]:
    return [point for point, kept in zip(points, nondominated(points), strict=True) if kept]


def beaten(points: Sequence[Point], by: Sequence[Point]) -> int:
    """How many of ``points`` some other of ``by`` is as good as everywhere, and better somewhere."""
    return sum(
        any(other != point and all(o <= p for o, p in zip(other, point, strict=True)) for other in by)
        for point in points
    )


def covers(points: Sequence[Point], others: Sequence[Point]) -> bool:
    """Whether every one of ``others`` has one of ``points`` that is nowhere worse."""
    return all(
        any(all(p <= o for p, o in zip(point, other, strict=True)) for point in points) for other in others
    )


def reached(one: Studied, other: Studied, around: Box) -> str:
    """When ``one`` has the hypervolume that ``other`` ends with."""
    wanted = around.share(other.points(other.steps))
    trained = 0
    for part in one.parts:
        trained += part.steps
        if part.values is not None and around.share(one.points(trained)) >= wanted:
            share = 100 * trained / other.steps
            return f"{one.name} is where {other.name} ends after {trained:,} steps: {share:.1f} % of them"
    return f"{one.name} never is where {other.name} ends"


if __name__ == "__main__":
    sys.exit(main())
