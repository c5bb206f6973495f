"""Where a sweep says that its time went."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from retsweep.spec import Settings
from retsweep.sweep.command import sweep, tell
from retsweep.sweep.engine import Engine
from retsweep.sweep.plan import Job
from retsweep.sweep.spent import Spent, spent_by
from retsweep.sweep.study import Entry
from retsweep.sweep.variants import wanted
from retsweep.sweep.workers import Places
from tests.tasks.corpora import write_corpus

ROWS = [
    {"trial_seconds": 10.0, "trial_training_seconds": 8.0},
    {"trial_seconds": 6.0, "trial_training_seconds": 4.0},
    {"trial_seconds": 1.0, "status": "failed"},
]


def test_shares_are_of_all_workers_time() -> None:
    spent = spent_by(ROWS, wall=10.0, workers=2)
    assert spent == Spent(wall=10.0, workers=2, trials=16.0, training=12.0, failed=1.0)
    assert spent.training_share == pytest.approx(0.6)
    assert spent.trials_share == pytest.approx(0.2)
    assert "60% were training steps, 20% the rest" in spent.line()
    assert spent.line().endswith("5% trials that failed, 15% planning, starting and waiting")
    whole = spent_by(ROWS[:2], wall=10.0, workers=2)
    assert whole is not None
    assert whole.line().endswith("(checks, evaluation, checkpoints), 20% planning, starting and waiting")


OWN = {"where": "here", "pid": 7, "born": "1"}


def entry(row: dict, worker: dict) -> Entry:
    return Entry(0, "h", "complete", 0, (1, 1), worker, None, row)


def engine(tmp_path: Path) -> Engine:
    job = Job({}, "", "s", tmp_path, tmp_path, "cpu", None)
    made = Engine(job, Settings(tracker=None), Places("cpu", 1), Console(file=io.StringIO()), 0.0)
    made._own, made._labels = [OWN], {"h": "a run"}
    return made


@pytest.mark.parametrize("other", [{"where": "there"}, {"born": "2"}, {"pid": 8}])
def test_a_process_is_ones_own_by_host_and_birth_too(tmp_path: Path, other: dict) -> None:
    found = engine(tmp_path)
    assert found._spent({"h": entry(ROWS[0], OWN)}, 10.0) == Spent(10.0, 1, 10.0, 8.0)
    assert found._spent({"h": entry(ROWS[0], OWN | other)}, 10.0) is None


def test_nothing_is_said_where_a_trial_left_no_seconds(tmp_path: Path) -> None:
    """What was stopped, or died, would be called starting and waiting."""
    for ending, deaths in (("limit", 0), ("interrupted", 0), ("done", 1)):
        found = engine(tmp_path)
        found._ending, found._deaths = ending, deaths
        assert found._spent({"h": entry(ROWS[0], OWN)}, 10.0) is None


def test_nothing_is_said_where_nothing_trained() -> None:
    assert spent_by(ROWS[2:], wall=10.0, workers=2) is None
    assert spent_by([], wall=10.0, workers=2) is None


@pytest.mark.slow
def test_a_sweep_measures_its_own_runs_and_not_those_of_an_earlier_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = write_corpus(tmp_path / "texts")
    text = ("corpus=text", f"corpus.path={texts}", "tokenizer=bytes", f"cache={tmp_path / 'cache'}")
    run = ("scale=tiny", "tracker=none", "device=cpu", "study=s", "budget.steps=3", "workers=1")
    asked = wanted((*run, *text))
    screen = io.StringIO()
    console = Console(file=screen)
    began = time.monotonic()
    first = sweep(asked, console, began - 100)
    assert first.spent is not None
    assert 0 < first.spent.training < first.spent.trials < first.spent.wall - 100
    assert 100 < first.spent.wall <= 100 + time.monotonic() - began, "what came before the engine counts"
    tell(first, asked, tmp_path / "runs" / "s", console)
    assert "were training steps" in screen.getvalue()
    again = sweep(asked, console, 0.0)
    assert again.finished == first.finished
    assert again.spent is None
