"""tune.learning_rate=[...]: every variant is tried with the same rates before the runs that count."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from retsweep.__main__ import main
from retsweep.spec import SpecError
from retsweep.spec.configs import from_file
from retsweep.spec.identity import spec_hash, variant_hash
from retsweep.sweep import command, engine, trial
from retsweep.sweep.engine import Engine
from retsweep.sweep.plan import Planned
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.trial import run_trial
from retsweep.sweep.tune import Tuning, check, lines, tuning_of
from retsweep.sweep.variants import Wanted, wanted, wanted_from
from tests.sweep.test_engine import events, prepare

DATA = "0123456789abcdef"
BASE = ("scale=tiny", "tracker=none", "device=cpu")
RATES = (0.1, 0.01, 0.001)
ASKED = "tune.learning_rate=[0.1,0.01,0.001]"


def tuning(*overrides: str) -> Tuning:
    found = wanted([*BASE, ASKED, *overrides])
    check(found)
    return tuning_of(found, [Planned(run, DATA) for run in found.runs])


def entry(spec_hash: str, row: Mapping[str, Any] | None, state: Any = "complete") -> Entry:
    row = None if row is None else dict(row)
    return Entry(0, spec_hash, state, 0, (0, 0), None, None, row)


def rows(found: Tuning, perplexities: Mapping[float, Any]) -> dict[str, Entry]:
    """Every try complete, with the perplexity of its rate (a list: one a seed), or its status."""
    standing = {}
    for key, one in found.planned.items():
        said = perplexities[one.spec.protocol.learning_rate]
        said = said[one.spec.seed - 1000] if isinstance(said, list) else said
        row = {"status": said} if isinstance(said, str) else {"status": "ok", "valid_ppl": said}
        standing[key] = entry(key, row)
    return standing


def chosen(found: Tuning, perplexities: Mapping[float, Any]) -> list[float]:
    return [choice.rate for choice in found.choices(rows(found, perplexities)).values()]


# ---- what is tried -------------------------------------------------------------------------------
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
        assert load_resolved({**run.config, "tracker": None})[0] == run.spec
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


# ---- whole commands ------------------------------------------------------------------------------
class Inline(Engine):
    """An engine that runs a trial itself, in this process, where another would see to its workers."""

    def _staff(self, standing: Mapping[str, Entry]) -> None:
        study = Study(self._job.url, self._job.study)
        taken = study.claim(self._job.runs) if self._ending == "done" else None
        if taken is not None:
            run_trial(self._job, study, taken, lambda: False)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that tunes a toy on a corpus of its own, in this process; no table is printed."""
    prepare(tmp_path, monkeypatch)
    monkeypatch.setattr(command, "_table", lambda *_: None)
    monkeypatch.setattr(command, "Engine", Inline)
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(trial, "_checked", lambda *_: {})  # the models are not what is tested
    return [*corpus(tmp_path), *BASE, ASKED, "~task", "+task._target_=tests.sweep.toy.Rated", "study=s"]


def corpus(folder: Path) -> list[str]:
    texts = folder / "texts"
    texts.mkdir()
    for split in ("train", "valid", "test"):
        (texts / f"{split}.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    return ["corpus=text", f"corpus.path={texts}", "tokenizer=bytes", f"cache={folder / 'cache'}"]


def found_rows(study: str) -> list[dict[str, Any]]:
    files = sorted(Path("runs", study).glob("trials/*/row.json"))
    return sorted((json.loads(file.read_text()) for file in files), key=lambda row: row["seed"])


def test_a_command_tunes_once_and_then_runs(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*toy, "seeds=2"]) == 0
    assert "learning rate 0.01, chosen on validation: Type A 2:2\n" in capsys.readouterr().out
    tries, main_rows = found_rows("s-tune"), found_rows("s")
    assert [(row["seed"], row.get("tuned_from")) for row in tries] == [(1000, None)] * 3
    assert [row["seed"] for row in main_rows] == [0, 1]
    for row in main_rows:
        assert (row["learning_rate"], row["tuned_from"]) == (0.01, "0.001 0.01 0.1")
    assert events(tmp_path)["ended"] == 5
    (again,) = wanted_from(from_file(next(Path("runs/s/trials").glob("*/config.yaml"))), []).runs
    data = main_rows[0]["data_hash"]
    assert variant_hash(again.spec, data) == main_rows[0]["variant_hash"]
    assert spec_hash(again.spec, data) in {row["spec_hash"] for row in main_rows}

    assert main([*toy, "seeds=2"]) == 0
    shown = capsys.readouterr().out
    assert "runs/s-tune: tuned before, with 3 runs\n" in shown
    assert "2 of 2 finished before" in shown
    assert events(tmp_path)["began@0"] == 5, "nothing ran again"


def test_a_study_with_untuned_rows_of_a_run_is_refused_before_anything_runs(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untuned = [word for word in toy if word != ASKED]
    assert main([*untuned, "protocol.learning_rate=0.01"]) == 0
    before = events(tmp_path)
    capsys.readouterr()
    assert main(toy) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (
        "the row of Type A 2:2 in study s has no tuned_from, where this command would write "
        "tuned_from=0.001 0.01 0.1; accepted: another study (study=NAME)\n"
    ) in error
    assert events(tmp_path) == before
    assert not Path("runs/s-tune").exists()
    assert main([word if word != "study=s" else "study=t" for word in toy]) == 0
    (row,) = found_rows("t")
    assert row["tuned_from"] == "0.001 0.01 0.1"


def test_a_row_that_says_other_rates_is_refused_whatever_would_be_chosen(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(toy) == 0
    before = events(tmp_path)
    more = [word if word != ASKED else "tune.learning_rate=[0.1,0.01,0.002]" for word in toy]
    assert main(more) == 2
    assert "in study s says tuned_from=0.001 0.01 0.1, where this command would write tuned_from=0.002 " in (
        capsys.readouterr().err
    )
    assert events(tmp_path) == before
    assert main([*toy, "seeds=2"]) == 0, "rows that agree are gone on from"


def test_failed_tries_end_in_an_exit_code_and_are_not_repeated(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main([*toy, "+task.fails_at=1000"]) == 1
        shown = capsys.readouterr().out
        assert "Type A 2:2: every learning rate (0.001 0.01 0.1) diverged or failed" in shown
        assert shown.count("failed, and counts as infinitely bad: Type A 2:2 rate") == 3
        assert events(tmp_path) == {"began@0": 4, "stepped": 4, "ended": 1}
    (row,) = found_rows("s")
    assert (row["learning_rate"], row["status"]) == (0.001, "ok")


class Deadly(Inline):
    """Its worker dies while it tries the smallest rate, for want of memory, say."""

    def _staff(self, standing: Mapping[str, Entry]) -> None:
        study = Study(self._job.url, self._job.study)
        taken = study.claim(self._job.runs)
        if taken is None:
            return
        if self._job.runs[taken.hash].spec.protocol.learning_rate == 0.001:
            study._end(taken.trial, TrialState.FAIL)
        else:
            run_trial(self._job, study, taken, lambda: False)


def test_while_a_try_is_lost_nothing_is_chosen_and_the_next_command_tries_it_again(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*toy, "+task.diverges_above=0.005", "retries=0"]
    with monkeypatch.context() as dying:
        dying.setattr(command, "Engine", Deadly)
        assert main(words) == 1
    shown = capsys.readouterr().out
    assert "not over, its worker died: Type A 2:2 rate 0.001 seed 1000\n" in shown
    assert "no learning rate is chosen; runs/s-tune/worker-*.log may say why; the same command" in shown
    assert "chosen on validation" not in shown
    assert not Path("runs/s").exists()
    assert main(words) == 0
    assert "learning rate 0.001, chosen on validation: Type A 2:2\n" in capsys.readouterr().out
    assert [row["learning_rate"] for row in found_rows("s")] == [0.001]
    assert events(tmp_path)["ended"] == 4, "the two that were over were not repeated"


def test_a_limit_in_the_tuning_ends_the_command_and_the_next_one_goes_on(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*toy, "+task.diverges_above=0.05"]
    assert command.run([*words, "limit.minutes=60"], time.monotonic() - 3600) == 0
    shown = capsys.readouterr().out
    assert "tuning is not over; the runs that count come after it\n" in shown
    assert "limit.minutes=60 is over: 2 of 3 runs are left; the same command goes on\n" in shown
    assert not Path("runs/s").exists()
    assert main(words) == 0
    assert [row["learning_rate"] for row in found_rows("s")] == [0.01]
    assert {row["learning_rate"]: row["status"] for row in found_rows("s-tune")} == {
        0.1: "diverged@1",
        0.01: "ok",
        0.001: "ok",
    }
    assert events(tmp_path) == {"began@0": 4, "stepped": 4, "ended": 4}


def test_the_limit_covers_both_phases(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hour is over when the last of three tries has ended: two runs that count, of which one
    begins (a sweep looks at the clock after it has seen to its workers)."""
    hour = SimpleNamespace(
        monotonic=lambda: time.monotonic() + 3600 * (events(tmp_path)["ended"] >= 3), sleep=time.sleep
    )
    monkeypatch.setattr(engine, "time", hour)
    assert main([*toy, "seeds=2", "limit.minutes=60"]) == 0
    shown = capsys.readouterr().out
    assert "learning rate 0.01, chosen on validation: Type A 2:2\n" in shown
    assert "limit.minutes=60 is over: 1 of 2 runs are left; the same command goes on\n" in shown
    assert len(found_rows("s")) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_tuning_ends_the_command(
    toy: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    class Signalled(Inline):
        def _staff(self, standing: Mapping[str, Entry]) -> None:
            super()._staff(standing)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(command, "Engine", Signalled)
    assert main(toy) == code
    shown = capsys.readouterr().out
    assert "ted: 2 of 3 runs are left; the same command goes on\n" in shown
    assert not Path("runs/s").exists()


def test_real_training_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps at a rate of 1e-9 teach nothing: the other is chosen. In real workers."""
    prepare(tmp_path, monkeypatch)
    monkeypatch.setattr(command, "_table", lambda *_: None)
    words = [*corpus(tmp_path), *BASE, "tune.learning_rate=[1e-9,0.01]", "protocol.steps=3", "workers=1"]
    assert main([*words, "layout.attention=4", "study=s"]) == 0
    (row,) = found_rows("s")
    assert (row["learning_rate"], row["tuned_from"], row["seed"]) == (0.01, "1e-09 0.01", 0)
    nothing, something = sorted(found_rows("s-tune"), key=lambda row: row["learning_rate"])
    assert something["valid_ppl"] < nothing["valid_ppl"]


def test_wanted_is_untouched_without_tuning() -> None:
    found: Wanted = wanted([*BASE])
    check(found)
    assert found.settings.tune.learning_rate is None
    assert found.study == "single-train-tiny-corrected"
