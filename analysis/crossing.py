"""Where a cost that depends on the context falls below another's: of counts, and of measurements."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise


def closed_form(values: Mapping[int, int]) -> tuple[Fraction, Fraction] | None:
    """(a, b) such that a + b n is every count exactly; None if no line passes through all."""
    first, last = min(values), max(values)
    slope = Fraction(values[last] - values[first], last - first)
    start = values[first] - slope * first
    return (start, slope) if all(start + slope * n == value for n, value in values.items()) else None


def cross(values: Mapping[int, int], base: Mapping[int, int]) -> tuple[float | None, str]:
    """The context from which on ``values`` are below ``base``, and how it was found."""
    own, other = closed_form(values), closed_form(base)
    if own and other:
        saved = other[1] - own[1]
        if saved <= 0:
            return None, "its cost grows no slower than the Transformer's"
        context = (own[0] - other[0]) / saved
        return (
            (float(context), "where the exact straight lines cross")
            if context >= 1
            else (
                None,
                "it costs less at every context",
            )
        )
    shared = sorted(set(values) & set(base))
    gaps = [(n, values[n] - base[n]) for n in shared]
    for (n, gap), (m, later) in reversed(list(pairwise(gaps))):
        if gap >= 0 > later:
            return n + (m - n) * gap / (gap - later), "between two counted contexts, on straight pieces"
    return None, "no crossing between the counted contexts"


def cross_measured(values: Mapping[int, float], base: Mapping[int, float]) -> tuple[float | None, str]:
    """The context from which on measured ``values`` stay below ``base``, and how it was found: on straight
    pieces between the measured contexts, and beyond neither end of them."""
    shared = sorted(set(values) & set(base))
    gaps = [(n, values[n] - base[n]) for n in shared]
    if not gaps:
        return None, "measured at no context of the Transformer's"
    first, last = shared[0], shared[-1]
    if gaps[-1][1] >= 0:
        return None, f"none up to {last:,}"
    for (n, gap), (m, later) in reversed(list(pairwise(gaps))):
        if gap >= 0 > later:
            return n + (m - n) * gap / (gap - later), f"between {n:,} and {m:,}"
    return None, f"at every context measured, from {first:,} on"
