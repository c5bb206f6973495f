from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retsweep.train.schedule import learning_rate, warmup_steps
from tests.train.tiny import protocol


def test_the_warm_up_is_a_line_and_the_cosine_ends_at_its_final_fraction():
    run = protocol(learning_rate=0.1, warmup=0.1, final_learning_rate=0.25, schedule="cosine")
    rates = [learning_rate(run, step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
    assert rates[9] == 0.1
    assert rates[54] == pytest.approx(0.1 * (0.25 + 0.75 / 2))  # half way down
    assert rates[-1] == pytest.approx(0.025)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_constant_without_warm_up_never_moves():
    run = protocol(warmup=0.0, schedule="constant", learning_rate=0.5)
    assert {learning_rate(run, step, 7) for step in range(1, 8)} == {0.5}


@given(
    steps=st.integers(1, 300),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["constant", "cosine"]),
)
def test_every_step_has_a_rate_between_nothing_and_the_peak(steps, warmup, schedule):
    run = protocol(warmup=warmup, schedule=schedule, learning_rate=0.3)
    rates = [learning_rate(run, step, steps) for step in range(1, steps + 1)]
    assert all(0 < rate <= 0.3 and math.isfinite(rate) for rate in rates)
    if warmup_steps(run, steps):
        assert max(rates) == 0.3
