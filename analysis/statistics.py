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
    return t_quantile_95(n - 1) * math.sqrt(variance / n)


def t_quantile_95(freedom: int) -> float:
    """The t with 95 % of Student's distribution of ``freedom`` degrees between -t and t."""
    low, high = 0.0, 13.0  # 12.706 at one degree of freedom is the largest there is
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < 0.95 else (low, middle)
    return high


def t_within(t: float, freedom: int) -> float:
    """P(-t < T < t) for Student's T. Abramowitz & Stegun (1964), 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    series = 0.0
    for k in range(2 + odd, freedom + 1, 2):  # the term in cos^(k-2)
        series += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * series) if odd else sine * series


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
