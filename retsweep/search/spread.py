"""Architectures spread over their costs: what a search begins with, and how buckets are cut.

Costs are known before anything is trained. Layers drawn one by one give networks that cost about the same, as
sums do; a front is wanted over all that the space can cost.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence

from retsweep.search.objectives import cost, counted, excess
from retsweep.search.proposals import Proposal
from retsweep.search.space import Architectures, Builder, Params
from retsweep.search.standing import Plan
from retsweep.spec import RunSpec, SpecError

#: Architectures drawn from the space for a look at it.
DRAWN = 64


def drawn(
    space: Architectures,
    builder: Builder,
    limits: Mapping[str, float],
    source: random.Random,
    given: Params | None = None,
) -> Iterator[tuple[Params, RunSpec]]:
    """Of ``DRAWN`` architectures, with what is ``given``, those that can be built within ``limits``."""
    for _ in range(DRAWN):
        params = {**space.draw(source), **(given or {})}
        try:
            spec, _ = builder.spec(space.values(params))
        except SpecError:
            continue
        if all(share <= 0 for share in excess(spec, limits).values()):
            yield params, spec


def furthest(space: Architectures, builder: Builder, plan: Plan, before: Sequence[Proposal]) -> Params | None:
    """Of architectures drawn at random that whose costs (the search's objectives, in parts of the range that
    is met) are furthest from those of ``before``: of those that are as configured but for their letters, or
    where these cost nothing new, of all. None if there is nothing to be far from, or no draw can be built."""
    names = counted(plan.search.objectives)
    known = [[float(one.costs[name]) for name in names] for one in before if set(names) <= set(one.costs)]
    if not known or not names:
        return None
    digest = hashlib.sha256(f"{plan.search.seed} spread {len(before)}".encode()).digest()
    source = random.Random(int.from_bytes(digest[:8]))
    for given in dict.fromkeys((tuple(space.configured.items()), ())):
        found = [
            (params, [float(cost(spec, name)) for name in names])
            for params, spec in drawn(space, builder, plan.limits, source, dict(given))
        ]
        distances = [_distance(costs, known, found) for _, costs in found]
        if max(distances, default=0.0) > 0:
            return found[distances.index(max(distances))][0]
    return None


def _distance(
    costs: Sequence[float], known: Sequence[Sequence[float]], found: Sequence[tuple[Params, Sequence[float]]]
) -> float:
    """To the nearest of ``known``, in parts of the range of all."""
    columns = zip(*known, *(other for _, other in found), strict=True)
    widths = [max(column) - min(column) or 1.0 for column in columns]
    return min(
        math.hypot(*((a - b) / width for a, b, width in zip(costs, one, widths, strict=True)))
        for one in known
    )
