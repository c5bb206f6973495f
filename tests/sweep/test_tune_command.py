"""Tuning as commands: once, resumed, limited, interrupted."""

from __future__ import annotations

import json
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
from retsweep.spec.configs import from_file
from retsweep.spec.identity import spec_hash, variant_hash
from retsweep.sweep import command, engine, trial
from retsweep.sweep.engine import Engine
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.trial import run_trial
from retsweep.sweep.tune import check
from retsweep.sweep.variants import Wanted, wanted, wanted_from
from tests.sweep.test_engine import events, prepare
from tests.sweep.tunings import ASKED, BASE


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


@pytest.mark.slow
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
