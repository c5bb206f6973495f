import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics import ci95, median, rank_correlation, t_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # two-sided 95 %, from any table of Student's t
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423)],
)
def test_t_quantiles_are_those_of_the_tables(freedom, quantile):
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-5)


def test_t_tends_to_the_normal_distribution():
    assert t_quantile(0.975, 10**6) == pytest.approx(1.959964, abs=1e-4)


def test_interval_of_known_values():
    # sd of (1, 2, 3) is 1; 4.3027 / sqrt(3)
    assert ci95([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    assert ci95([1.0]) is None


def test_median_with_infinite_values():
    assert median([3.0, 1.0, math.inf]) == 3.0
    assert median([1.0, math.inf]) == math.inf
    assert median([1.0, 2.0, 4.0, math.inf]) == 3.0


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=20).filter(lambda v: len(set(v)) > 1))
def test_rank_correlation_knows_the_same_and_the_reversed_order(values):
    assert rank_correlation(values, [3 * value + 1 for value in values]) == pytest.approx(1)
    assert rank_correlation(values, [-(value**3) for value in values]) == pytest.approx(-1)
