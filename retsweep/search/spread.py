"""Architectures spread over their costs: what a search begins with, and how buckets are cut.

Costs are known before anything is trained. Layers drawn one by one give networks that cost about the same, as
sums do; a front is wanted over all that the space can cost.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence

from retsweep.search.objectives import PERPLEXITY, cost, excess
from retsweep.search.proposals import Proposal
from retsweep.search.space import Architectures, Builder, Params
from retsweep.search.standing import Plan
from retsweep.spec import RunSpec, SpecError

#: Architectures drawn from the space for a look at it.
DRAWN = 64


def drawn(
    space: Architectures, builder: Builder, limits: Mapping[str, float], source: random.Random
) -> Iterator[tuple[Params, RunSpec]]:
    """Of ``DRAWN`` architectures those that can be built within ``limits``."""
    for _ in range(DRAWN):
        params = space.draw(source)
        try:
            spec, _ = builder.spec(space.values(params))
        except SpecError:
            continue
        if all(share <= 0 for share in excess(spec, limits).values()):
            yield params, spec


def furthest(space: Architectures, builder: Builder, plan: Plan, before: Sequence[Proposal]) -> Params | None:
    """Of architectures drawn at random that whose costs (the search's objectives, in parts of the range that
    is met) are furthest from those of ``before``; None if there is nothing to be far from, or none can be."""
    names = [name for name in plan.search.objectives if name != PERPLEXITY]
    known = [[float(one.costs[name]) for name in names] for one in before if set(names) <= set(one.costs)]
    digest = hashlib.sha256(f"{plan.search.seed} spread {len(before)}".encode()).digest()
    source = random.Random(int.from_bytes(digest[:8]))
    found = [
        (params, [float(cost(spec, name)) for name in names])
        for params, spec in drawn(space, builder, plan.limits, source)
    ]
    if not known or not found:
        return None
    every = [*known, *(costs for _, costs in found)]
    ranges = [max(column) - min(column) or 1.0 for column in zip(*every, strict=True)]

    def distance(costs: Sequence[float]) -> float:
        return min(
            sum(((a - b) / width) ** 2 for a, b, width in zip(costs, one, ranges, strict=True))
            for one in known
        )

    return max(found, key=lambda one: distance(one[1]))[0]
