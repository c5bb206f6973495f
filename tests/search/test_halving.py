"""The promotion rule, against small cases by hand and what must hold of any."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retsweep.search.halving import promotions

RUNGS, ETA = (10, 30), 3


def test_the_best_third_of_a_rung_goes_on() -> None:
    results = {key: {10: float(place)} for place, key in enumerate("fbdeac")}
    assert promotions(results, dict.fromkeys(results, 0), RUNGS, ETA) == ["f", "b"]
    assert promotions({key: results[key] for key in "fb"}, dict.fromkeys("fb", 0), RUNGS, ETA) == []


def test_runs_are_compared_within_their_bucket() -> None:
    results = {"a": {10: 1.0}, "b": {10: 2.0}, "c": {10: 3.0}, "x": {10: 7.0}, "y": {10: 8.0}, "z": {10: 9.0}}
    buckets = {key: int(key in "xyz") for key in results}
    assert promotions(results, buckets, RUNGS, ETA) == ["a", "x"]


def test_whoever_is_further_is_not_named_again_and_keeps_its_place_among_the_best() -> None:
    results = {"a": {10: 1.0, 30: 5.0}, "b": {10: 2.0}, "c": {10: 3.0}}
    assert promotions(results, dict.fromkeys(results, 0), RUNGS, ETA) == []


def test_the_last_rung_comes_first_and_leads_to_the_end() -> None:
    results = {key: {10: 1.0 + place, 30: 3.0 - place} for place, key in enumerate("abc")}
    results |= {key: {10: 0.1} for key in "xyz"}
    assert promotions(results, dict.fromkeys(results, 0), RUNGS, ETA) == ["c", "x", "y"]


def test_what_diverged_counts_and_never_goes_on() -> None:
    results = {"a": {10: math.inf}, "b": {10: math.nan}, "c": {10: 3.0}}
    assert promotions(results, dict.fromkeys(results, 0), RUNGS, ETA) == ["c"]
    assert promotions({"a": {10: math.inf}}, {"a": 0}, RUNGS, ETA, closing=True) == []


def test_at_the_end_every_bucket_gets_a_whole_run() -> None:
    results = {"a": {10: 2.0}, "b": {10: 1.0}, "x": {10: 9.0, 30: 8.0}}
    buckets = {"a": 0, "b": 0, "x": 1}
    assert promotions(results, buckets, RUNGS, ETA) == []
    assert promotions(results, buckets, RUNGS, ETA, closing=True) == ["x", "b"]


@pytest.mark.parametrize(("rungs", "eta"), [((30, 10), 3), ((10, 10), 3), ((0, 10), 3), ((10,), 1)])
def test_rules_that_cannot_be_are_refused(rungs: tuple[int, ...], eta: int) -> None:
    with pytest.raises(ValueError, match="rungs ascend"):
        promotions({}, {}, rungs, eta)


@given(
    st.dictionaries(
        st.text("abcdef", min_size=3, max_size=3), st.tuples(st.integers(0, 2), st.floats(1, 9)), max_size=40
    ),
    st.integers(2, 4),
)
def test_of_no_bucket_more_than_its_share_passes(runs: dict[str, tuple[int, float]], eta: int) -> None:
    results = {key: {10: perplexity} for key, (_, perplexity) in runs.items()}
    buckets = {key: bucket for key, (bucket, _) in runs.items()}
    chosen = promotions(results, buckets, RUNGS, eta)
    for bucket in set(buckets.values()):
        members = [key for key in runs if buckets[key] == bucket]
        passed = [key for key in chosen if buckets[key] == bucket]
        assert len(passed) == len(members) // eta
        worst = max((runs[key][1] for key in passed), default=-math.inf)
        assert all(runs[key][1] >= worst for key in members if key not in passed)
