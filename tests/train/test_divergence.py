from __future__ import annotations

import math

import pytest

from retsweep.train.divergence import DivergenceWatch
from tests.train.tiny import protocol

UNIGRAM = 3.0


def end(losses: list[float], divergence: str = "above_unigram", steps: int = 400) -> int | None:
    """The step at which the watch ends a run with these losses; None if it never does."""
    watch = DivergenceWatch.of(protocol(divergence=divergence), steps, UNIGRAM)
    return next((step for step, loss in enumerate(losses, 1) if watch.diverged(step, loss)), None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("divergence", ["non_finite", "above_unigram"])
def test_a_loss_that_is_no_number_ends_at_once(bad, divergence):
    assert end([2.0, 2.0, bad, 2.0], divergence) == 3


def test_a_run_that_leaves_for_good_ends_after_the_patience():
    assert end([2.0] * 30 + [9.0] * 300) == 50  # 20 steps are a twentieth of 400


def test_a_run_that_blows_up_and_comes_back_goes_on():
    assert end([2.0] * 30 + ([9.0] * 19 + [2.0]) * 18) is None


def test_published_runs_may_stay_away():
    assert end([2.0] * 30 + [9.0] * 300, "non_finite") is None


def test_a_slow_start_is_no_divergence_but_a_run_that_never_starts_is():
    assert end([9.0] * 219 + [2.0] * 181) is None
    assert end([9.0] * 400) == 220


def test_a_loss_a_little_above_the_line_is_not_far_above_it():
    assert end([UNIGRAM + 0.9] * 400) is None


def test_short_runs_are_not_judged():
    assert end([9.0] * 30, steps=30) is None


def test_without_a_unigram_line_only_numbers_are_asked_for():
    watch = DivergenceWatch.of(protocol(divergence="above_unigram"), 40, None)
    assert not any(watch.diverged(step, 1e30) for step in range(1, 41))
