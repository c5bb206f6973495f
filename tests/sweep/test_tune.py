"""tune.learning_rate=[...]: every variant is tried with the same rates before the runs that count."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from retsweep.__main__ import main
from retsweep.spec import SpecError
from retsweep.sweep.plan import Planned
from retsweep.sweep.tune import lines, tuning_of
from retsweep.sweep.variants import wanted
from tests.sweep.tunings import ASKED, BASE, DATA, RATES, chosen, entry, rows, tuning


def test_every_variant_is_tried_with_every_rate_and_seed_references_too() -> None:
    found = tuning("+sweep=smoke", "tune.seeds=2", "seeds=3")
    tries = found.wanted_tries
    assert tries.study == "smoke-train-tiny-corrected-tuned-tune"
    variants = {run.spec.pattern + run.spec.layout.kind for run in found.wanted.runs}
    assert len(variants) == 7
    assert len(tries.runs) == 7 * 3 * 2
    assert {(run.spec.protocol.learning_rate, run.spec.seed) for run in tries.runs} == {
        (rate, seed) for rate in RATES for seed in (1000, 1001)
    }
    assert [run.label for run in tries.runs[:2]] == [
        "Transformer rate 0.1 seed 1000",
        "Transformer rate 0.01 seed 1000",
    ]
    assert {run.label.split(" rate")[0] for run in tries.runs if run.reference} == {"FFN only"}
    assert [run.spec.seed for run in tries.runs] == sorted(run.spec.seed for run in tries.runs)


def test_the_config_of_a_try_gives_the_try() -> None:
    from retsweep.spec.load import load_resolved

    for run in tuning("tune.steps=7", "+sweep=smoke").wanted_tries.runs:
        assert (
            load_resolved({**run.config, "tracker": {"_target_": "retsweep.tracking.NoTracker"}})[0]
            == run.spec
        )
        assert (run.spec.protocol.steps, run.spec.protocol.epochs) == (7, None)


def test_short_tries_of_a_protocol_that_counts_epochs() -> None:
    (one, *_) = tuning("tune.steps=7", "protocol.steps=null", "protocol.epochs=2").wanted_tries.runs
    assert (one.spec.protocol.steps, one.spec.protocol.epochs) == (7, None)


def test_a_variant_that_is_a_member_twice_is_tuned_once() -> None:
    """Labels do not tell variants apart: "published" with other settings may be "corrected"."""
    found = wanted([*BASE, ASKED])
    (run,) = found.runs
    protocol = dataclasses.replace(run.spec.protocol, name="otherwise called")
    namesake = dataclasses.replace(run, spec=dataclasses.replace(run.spec, protocol=protocol))
    both = dataclasses.replace(found, runs=(run, namesake))
    tuned = tuning_of(both, [Planned(one, DATA) for one in both.runs])
    assert len(tuned.planned) == 3
    assert tuned.keys[0] == tuned.keys[1]
    main = tuned.tuned(tuned.choices(rows(tuned, {0.1: 9.0, 0.01: 8.0, 0.001: 7.0})))
    assert [one.spec.protocol.learning_rate for one in main.runs] == [0.001, 0.001]


# ---- what is chosen ------------------------------------------------------------------------------
def test_the_lowest_mean_of_log_perplexities_wins() -> None:
    found = tuning("tune.seeds=2")
    # Means of perplexities would have it the other way round: 52 and 50.
    assert chosen(found, {0.1: [2.0, 102.0], 0.01: [45.0, 55.0], 0.001: [60.0, 60.0]}) == [0.1]


@pytest.mark.parametrize("bad", ["diverged@3", math.inf, math.nan, None])
def test_one_bad_try_of_a_rate_is_infinitely_bad(bad: Any) -> None:
    found = tuning("tune.seeds=2")
    assert chosen(found, {0.1: [1.0, bad], 0.01: [50.0, 60.0], 0.001: [60.0, 60.0]}) == [0.01]


def test_leaky_rows_are_chosen_among_by_their_perplexity_under_a_causal_mask() -> None:
    found = tuning("protocol=published")
    standing = rows(found, {0.1: 2.0, 0.01: 3.0, 0.001: 4.0})
    masked = {0.1: 90.0, 0.01: 70.0, 0.001: 80.0}
    for key, one in found.planned.items():
        row = standing[key].row or {}
        standing[key] = entry(key, {**row, "valid_ppl_causal_eval": masked[one.spec.protocol.learning_rate]})
    (choice,) = found.choices(standing).values()
    assert choice.rate == 0.01
    assert choice.losses[0.01] == math.log(70.0)


def test_a_try_that_failed_is_infinitely_bad() -> None:
    found = tuning()
    standing = rows(found, {0.1: 1.0, 0.01: 50.0, 0.001: 60.0})
    key = next(iter(standing))
    assert found.planned[key].spec.protocol.learning_rate == 0.1
    standing[key] = entry(key, {"status": "failed", "valid_ppl": 1.0}, "failed")
    (choice,) = found.choices(standing).values()
    assert choice.rate == 0.01
    assert choice.losses == {0.1: math.inf, 0.01: math.log(50.0), 0.001: math.log(60.0)}


@pytest.mark.parametrize("state", ["lost", "waiting", "running"])
def test_a_try_that_is_not_over_says_nothing_of_its_rate(state: str) -> None:
    found = tuning()
    standing = rows(found, {0.1: 1.0, 0.01: 50.0, 0.001: 60.0})
    assert found.open(standing) == {}
    key = next(iter(standing))
    standing[key] = entry(key, None, state)
    assert list(found.open(standing)) == [key]
    with pytest.raises(ValueError, match=f"{state} has no loss"):
        found.choices(standing)


def test_of_rates_as_good_the_smallest_is_chosen_and_blind_choices_are_told() -> None:
    found = tuning()
    assert chosen(found, {0.1: 5.0, 0.01: 5.0, 0.001: 6.0}) == [0.01]
    choices = found.choices(rows(found, dict.fromkeys(RATES, "diverged@1")))
    (choice,) = choices.values()
    assert choice.blind
    assert choice.rate == 0.001
    assert list(lines(choices)) == [
        "Type A 2:2: every learning rate (0.001 0.01 0.1) diverged or failed; the smallest is taken"
    ]


def test_rates_are_told_with_those_who_got_them() -> None:
    found = tuning("+sweep=smoke")
    choices = found.choices(rows(found, {0.1: 5.0, 0.01: 4.0, 0.001: 6.0}))
    key = next(iter(choices))
    choices[key] = dataclasses.replace(choices[key], rate=0.1)
    assert list(lines(choices)) == [
        "learning rate 0.01, chosen on validation: RetNet, Type A 2:2, Type B 1:3, Type C 1:3, "
        "Pattern 3:5, FFN only",
        "learning rate 0.1, chosen on validation: Transformer",
    ]


def test_nothing_but_the_rate_changes_in_the_runs_that_count() -> None:
    found = tuning("+sweep=smoke", "seeds=2", "tune.steps=5", "match=params")
    before = found.wanted
    after = found.tuned(found.choices(rows(found, {0.1: 5.0, 0.01: 4.0, 0.001: 6.0})))
    assert (after.study, after.settings) == (before.study, before.settings)
    assert len(after.runs) == len(before.runs) == 14
    for old, new in zip(before.runs, after.runs, strict=True):
        assert new.spec.protocol.learning_rate == 0.01
        protocol = dataclasses.replace(new.spec.protocol, learning_rate=old.spec.protocol.learning_rate)
        assert dataclasses.replace(new.spec, protocol=protocol) == old.spec
        assert new.config["protocol"]["learning_rate"] == 0.01
        assert new.extra == {**old.extra, "tuned_from": "0.001 0.01 0.1", "tuned_steps": 5}
        assert old.config["protocol"]["learning_rate"] == 3e-3, "the old one was not touched"


def test_a_variant_is_settled_when_all_its_tries_have_ended() -> None:
    found = tuning("+sweep=smoke")
    everything = rows(found, {0.1: 5.0, 0.01: 4.0, 0.001: 6.0})
    assert found.unsettled(everything) == {}
    failed, _, _, lost, *_ = found.planned
    standing = {**everything, failed: entry(failed, {}, "failed"), lost: entry(lost, None, "lost")}
    left = found.unsettled(standing)
    assert {one.run.label.split(" rate")[0] for one in left.values()} == {"RetNet"}
    assert len(left) == 3
    assert found.unsettled({}) == found.planned


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=count"], "task=count has no validation loss to choose by"),
        (
            ["seeds=3", "tune.first_seed=1", "tune.seeds=4"],
            "tune.first_seed=1 would tune with seeds of the runs that count (1, 2); accepted: "
            "tune.first_seed=3 or more",
        ),
        (["tune.learning_rate=[0.1]"], "tune.learning_rate=[0.1] is not accepted; accepted: two or more"),
        (["tune.learning_rate=[0.1,0.10]"], "two or more different rates"),
        (["tune.learning_rate=[]"], "two or more different rates"),
        (["tune.learning_rate=0.1"], "tune.learning_rate=0.1 is not accepted; accepted: a list: [a,b]"),
        (["tune.learning_rate=[0.1,-1]"], "tune.learning_rate=-1 is not accepted; accepted: greater than 0"),
        (["tune.first_seed=2147483647", "tune.seeds=2"], "accepted: seeds below 2^31"),
        (["tune.rates=[1]"], "unknown key 'tune.rates'"),
    ],
)
def test_what_cannot_be_tuned_is_one_line_and_nothing_is_written(
    overrides: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [] if any(item.startswith("tune.learning_rate") for item in overrides) else [ASKED]
    assert main([*BASE, *asked, *overrides]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_rates_is_not_tuned() -> None:
    found = wanted([*BASE, ASKED])
    (run,) = found.runs
    protocol = dataclasses.replace(run.spec.protocol, learning_rate=0.5)
    other = dataclasses.replace(run, spec=dataclasses.replace(run.spec, protocol=protocol))
    with pytest.raises(SpecError, match=r"protocol\.learning_rate, which this sweep varies"):
        tuning_of(found, [Planned(run, DATA), Planned(other, DATA)])


def test_rows_without_a_perplexity_are_nothing_to_choose_by() -> None:
    found = tuning()
    standing = {key: entry(key, {"status": "ok"}) for key in found.planned}
    with pytest.raises(SpecError, match="task=train writes no valid_ppl"):
        found.choices(standing)
