"""Asynchronous successive halving (Li et al., 2020) within buckets: who may train on.

A rung is a number of optimiser steps after which a run is looked at and stops until it is promoted: the
same run, a prefix of itself. Runs are compared with those of their own bucket alone (of like MACs), so that
a cheap architecture never has to beat a dear one and every part of the front gets whole runs.

One pure function, so that a search and a replay of recorded curves go by the same rule.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence


def promotions(
    results: Mapping[str, Mapping[int, float]],
    buckets: Mapping[str, int],
    rungs: Sequence[int],
    eta: int,
    *,
    closing: bool = False,
) -> list[str]:
    """The runs to promote now, by hash: those of the last rung first, of a rung by bucket, the best first.

    ``results`` has each run's validation perplexity by steps, also those past the last rung: a run that
    has a result beyond a rung was promoted from it. A run that was promoted and has not got there yet is
    named again; the caller knows. ``rungs`` are steps, ascending; from the last one a run goes on to its
    end. Of the n results of a rung within a bucket the best floor(n / eta) are promoted; what is no number
    (the run diverged) counts as one of the n and never is. Equals go by their hash.

    ``closing``: no further run will come. Then of every rung in every bucket the best goes on even where
    there are fewer than ``eta``, so that no bucket ends without a whole run.

    Raises ValueError unless ``rungs`` ascend from 1 and ``eta`` is 2 or more.
    """
    if eta < 2 or list(rungs) != sorted(set(rungs)) or any(steps < 1 for steps in rungs):
        raise ValueError(f"rungs={list(rungs)}, eta={eta}: rungs ascend from 1 and eta is 2 or more")
    chosen: list[str] = []
    for steps in reversed(rungs):
        for _, there in sorted(_at(steps, results, buckets).items()):
            count = max(len(there) // eta, 1 if closing else 0)
            best = sorted((perplexity, key) for key, perplexity in there.items() if math.isfinite(perplexity))
            chosen += [key for _, key in best[:count] if max(results[key]) == steps]
    return chosen


def _at(
    steps: int, results: Mapping[str, Mapping[int, float]], buckets: Mapping[str, int]
) -> dict[int, dict[str, float]]:
    """The perplexities after ``steps``, by bucket and hash."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for key, curve in results.items():
        if steps in curve:
            found[buckets[key]][key] = curve[steps]
    return found
