"""``python -m benchmarks.halving STUDY``: what successive halving within buckets would have saved.

STUDY is one of whole runs that were validated on the way (budget.validate_every=STEPS), under runs/ or
published. Its runs are proposed in an order drawn at random, one of each variant, and trained with halving
and without, both from the recorded curves: a rung is a prefix of a run, so nothing is guessed. Prints the
steps that were trained and the hypervolume of the whole runs' front, and what share of the steps reaches the
same hypervolume; each with a 95 % interval over orders (ratios of steps as geometric means). Exit status 2
for what cannot be replayed.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.front import bucket_edges, bucket_of, check_objectives
from analysis.hypervolume import Box, Point, box
from analysis.rows import TableError, find_study
from analysis.statistics import ci95, mean
from benchmarks.candidates import Candidate, candidates, recorded
from benchmarks.replay import Ended, replay

#: Parts of the hypervolume of all whole runs, at which steps are compared.
LEVELS = (0.9, 0.95, 0.99, 1.0)
#: Hypervolumes that differ by less are the same: sums in another order.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Plan:
    """``rungs`` are steps, ascending, below those of a whole run; ``buckets`` of the column ``cost``, by a
    candidate's key."""

    rungs: tuple[int, ...]
    eta: int
    cost: str
    buckets: Mapping[str, int]
    box: Box


@dataclass(frozen=True)
class Course:
    """One replay: steps in all, and the hypervolume after so many steps, rising, from (0, 0)."""

    steps: int
    rises: tuple[tuple[int, float], ...]
    whole: int

    @property
    def hypervolume(self) -> float:
        return self.rises[-1][1]

    def steps_to(self, hypervolume: float) -> int | None:
        """Trained when it is first reached; None if it never is."""
        wanted = hypervolume - ROUNDING
        return next((steps for steps, reached in self.rises if reached >= wanted), None)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    try:
        columns = tuple(given.by.split(",")) if given.by else ()
        if columns:
            check_objectives(columns)
        folder = find_study(given.study)
        by, found = candidates(folder, columns)
        plan = planned(given, by, found, folder.name)
        print("\n".join([*heading(folder.name, by, found, plan, given.orders), ""]))
        for workers in numbers("workers", given.workers):
            pairs = [both(found, plan, workers, seed) for seed in range(given.orders)]
            print("\n".join([f"workers={workers}", *told(pairs), ""]))
    except TableError as error:
        print(f"benchmarks.halving: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.halving", description="What successive halving would have saved."
    )
    parser.add_argument("study", help="a folder, or a name under runs/")
    parser.add_argument("--eta", type=int, default=3, help="one of so many is promoted (default: 3)")
    parser.add_argument("--rungs", help="steps, as 50,150 (default: a whole run / eta², / eta)")
    parser.add_argument("--buckets", type=int, default=4, help="of the cost (default: 4)")
    parser.add_argument(
        "--bucket-by", help="a counted cost (default: the objective that differs most by ratio)"
    )
    parser.add_argument("--workers", default="1,4", help="at work at once (default: 1,4)")
    parser.add_argument("--orders", type=int, default=20, help="of the proposals, drawn (default: 20)")
    parser.add_argument("--by", help="two or three columns, minimised (default: perplexity, MACs)")
    return parser.parse_args(arguments)


def numbers(name: str, said: str) -> list[int]:
    """Raises TableError unless ``said`` is whole numbers from 1, commas between."""
    if not all(part.isdecimal() and int(part) > 0 for part in said.split(",")):
        raise TableError(f"--{name}={said} is not accepted; accepted: whole numbers from 1, as 1,4")
    return [int(part) for part in said.split(",")]


def planned(given: argparse.Namespace, by: Sequence[str], found: Sequence[Candidate], name: str) -> Plan:
    """Raises TableError for what cannot be replayed."""
    for option, least in (("eta", 2), ("buckets", 1), ("orders", 1)):
        if getattr(given, option) < least:
            raise TableError(
                f"--{option}={getattr(given, option)} is not accepted; accepted: {least} or more"
            )
    known = recorded(found, name)
    last = max(one.steps for one in found if one.values is not None)
    if given.rungs:
        rungs = sorted(set(numbers("rungs", given.rungs)))
        if missing := [steps for steps in rungs if steps not in known]:
            raise TableError(
                f"--rungs: no validation after {', '.join(map(str, missing))} steps; recorded: "
                f"{', '.join(map(str, known))}"
            )
    else:
        rungs = nearest(last, given.eta, known)
    cost = given.bucket_by or widest(by, found)
    if lacking := sum(cost not in one.costs for one in found):
        raise TableError(f"--bucket-by={cost}: {lacking} runs have no such count of MACs or bytes")
    edges = bucket_edges([one.costs[cost] for one in found], given.buckets)
    return Plan(
        rungs=tuple(rungs),
        eta=given.eta,
        cost=cost,
        buckets={one.key: bucket_of(one.costs[cost], edges) for one in found},
        box=box([one.values for one in found if one.values is not None]),
    )


def widest(by: Sequence[str], found: Sequence[Candidate]) -> str:
    """Of the objectives that are known before training, the one whose largest value is the most times its
    least. Within a bucket only perplexity counts: models that are on the front for a cost have to be
    compared with those of like cost. Raises TableError where no objective is one."""
    ranges = {}
    for column in by:
        known = [one.costs[column] for one in found if column in one.costs]
        if len(known) == len(found):
            ranges[column] = max(known) / min(known)
    if not ranges:
        raise TableError(f"none of {', '.join(by)} is counted before training; --bucket-by= names a cost")
    return max(ranges, key=lambda column: ranges[column])


def nearest(last: int, eta: int, known: Sequence[int]) -> list[int]:
    """The recorded steps nearest, by ratio, to ``last`` / eta² and ``last`` / eta: a search's own rungs."""
    wanted = (last / eta**2, last / eta)
    return sorted({min(known, key=lambda steps: abs(math.log(steps / one))) for one in wanted})


# ---- one order -------------------------------------------------------------------------------
def both(found: Sequence[Candidate], plan: Plan, workers: int, seed: int) -> tuple[Course, Course]:
    """Without halving and with it, on the same proposals in the same order."""
    order = proposals(found, seed)
    return (
        course(replay(order, plan.buckets, (), plan.eta, workers), plan.box),
        course(replay(order, plan.buckets, plan.rungs, plan.eta, workers), plan.box),
    )


def proposals(found: Sequence[Candidate], seed: int) -> list[Candidate]:
    """One run of each variant, its training seed drawn too: a search trains a proposal once."""
    draw = random.Random(seed)
    by_variant: dict[str, list[Candidate]] = {}
    for one in sorted(found, key=lambda one: one.key):
        by_variant.setdefault(one.variant, []).append(one)
    order = [draw.choice(runs) for runs in by_variant.values()]
    draw.shuffle(order)
    return order


def course(replayed: tuple[Sequence[Ended], int], around: Box) -> Course:
    ended, steps = replayed
    points: list[Point] = []
    rises = [(0, 0.0)]
    for one in ended:
        if one.candidate.values is None:
            continue
        points.append(one.candidate.values)
        hypervolume = around.share(points)
        if hypervolume > rises[-1][1] + ROUNDING:
            rises.append((one.trained, hypervolume))
    return Course(steps, tuple(rises), len(ended))


# ---- what is printed -------------------------------------------------------------------------
def heading(name: str, by: Sequence[str], found: Sequence[Candidate], plan: Plan, orders: int) -> list[str]:
    variants = {one.variant: plan.buckets[one.key] for one in found}
    sizes = Counter(variants.values())
    gone = sum(one.values is None for one in found)
    last = max(one.steps for one in found if one.values is not None)
    return [
        f"{name}: {len(variants)} variants, {len(found)} runs of {last} steps"
        + (f", {gone} of them diverged" if gone else ""),
        f"rungs {', '.join(map(str, plan.rungs))}; one of {plan.eta} is promoted; variants by bucket of "
        f"{plan.cost}: {', '.join(str(sizes[bucket]) for bucket in range(max(sizes) + 1))}",
        f"hypervolume of {', '.join(by)}: the part of the box of all runs that is dominated, in logarithms",
        f"{orders} orders of the proposals, one run of each variant; means, with 95 % intervals over orders",
    ]


def told(pairs: Sequence[tuple[Course, Course]]) -> list[str]:
    without, halved = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    lines = [f"  {'':<16}{'steps':>22}{'whole runs':>22}{'hypervolume':>24}"]
    for name, courses in (("no halving", without), ("halving", halved)):
        cells = [
            shown((one.steps for one in courses), "{:,.0f}"),
            shown((one.whole for one in courses), "{:.1f}"),
            shown((one.hypervolume for one in courses), "{:.4f}"),
        ]
        lines.append(f"  {name:<16}{cells[0]:>22}{cells[1]:>22}{cells[2]:>24}")
    shares = [
        shown((100 * h.steps / w.steps for w, h in pairs), "{:.1f} %"),
        shown((100 * h.whole / w.whole for w, h in pairs), "{:.1f} %"),
        shown((100 * h.hypervolume / w.hypervolume for w, h in pairs), "{:.2f} %"),
    ]
    lines.append(f"  {'share':<16}{shares[0]:>22}{shares[1]:>22}{shares[2]:>24}")
    lines += [level(pairs, part) for part in LEVELS]
    lines.append(same(pairs))
    return lines


def level(pairs: Sequence[tuple[Course, Course]], part: float) -> str:
    """How soon a part of the hypervolume of all runs is there, of the orders in which halving gets it."""
    shares, of_all = [], []
    for without, halved in pairs:
        there = without.steps_to(part * without.hypervolume)
        here = halved.steps_to(part * without.hypervolume)
        if here is not None and there:
            shares.append(here / there)
            of_all.append(100 * here / without.steps)
    head = f"  {part:.0%} of the hypervolume of all runs: reached in {len(shares)} of {len(pairs)} orders"
    if not shares:
        return head
    return (
        f"{head}, after {ratio(shares)} of the steps that no halving needs for it "
        f"({shown(of_all, '{:.1f} %')} of all steps)"
    )


def same(pairs: Sequence[tuple[Course, Course]]) -> str:
    """The hypervolume at which halving ends, and what either needs for it."""
    shares = []
    for without, halved in pairs:
        there, here = without.steps_to(halved.hypervolume), halved.steps_to(halved.hypervolume)
        if there and here:
            shares.append(here / there)
    return (
        f"  the hypervolume at which halving ends: after {ratio(shares)} of the steps that no "
        "halving needs for it"
    )


def ratio(values: Sequence[float]) -> str:
    """The geometric mean of ratios with its 95 % interval, in per cent: twice and half cancel out."""
    logs = [math.log(value) for value in values]
    if not logs:
        return "never"
    centre, half = mean(logs), ci95(logs)
    text = f"{100 * math.exp(centre):.1f} %"
    if half is None or half < ROUNDING:
        return text
    return f"{text} ({100 * math.exp(centre - half):.1f} to {100 * math.exp(centre + half):.1f})"


def shown(values: Iterable[float], form: str) -> str:
    """The mean, ± half its 95 % interval where there is more than one value."""
    known = list(values)
    if not known:
        return "never"
    half = ci95(known)
    text = form.format(mean(known))
    return (
        text if half is None or len(set(known)) == 1 else f"{text} ± {form.format(half).removesuffix(' %')}"
    )


if __name__ == "__main__":
    sys.exit(main())
