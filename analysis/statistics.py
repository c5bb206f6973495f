"""What several seeds say together: means with intervals, and medians where runs diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number the mean of the two middle ones, infinite if one is."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def ci95(values: Sequence[float]) -> float | None:
    """Half width of the 95 % confidence interval of the mean (Student's t); None for one value."""
    n = len(values)
    if n < 2:
        return None
    centre = mean(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (n - 1)
    return t_quantile(0.975, n - 1) * math.sqrt(variance / n)


def t_quantile(probability: float, freedom: int) -> float:
    """The t below which Student's T of ``freedom`` degrees lies with that probability."""
    from scipy.special import stdtrit  # a tenth of scipy.stats' import

    return float(stdtrit(freedom, probability))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: 1 if both orders are the same, -1 if one reverses the other; ties share ranks.

    NaN if either is constant.
    """
    a, b = _ranks(first), _ranks(second)
    centre = (len(a) + 1) / 2
    covariance = math.fsum((x - centre) * (y - centre) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(math.fsum((x - centre) ** 2 for x in a) * math.fsum((y - centre) ** 2 for y in b))
    return covariance / spread if spread else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
