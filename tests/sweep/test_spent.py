"""Where a sweep says that its time went."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from retsweep.sweep.command import sweep, tell
from retsweep.sweep.spent import Spent, spent_by
from retsweep.sweep.variants import wanted
from tests.tasks.corpora import write_corpus

ROWS = [
    {"trial_seconds": 10.0, "trial_training_seconds": 8.0},
    {"trial_seconds": 6.0, "trial_training_seconds": 4.0},
    {"trial_seconds": 1.0, "status": "failed"},  # it never trained
]


def test_shares_are_of_all_workers_time() -> None:
    spent = spent_by(ROWS, wall=10.0, workers=2)
    assert spent == Spent(wall=10.0, workers=2, trials=16.0, training=12.0)
    assert spent.training_share == pytest.approx(0.6)
    assert spent.trials_share == pytest.approx(0.2)
    assert "60% were training steps, 20% the rest" in spent.line()
    assert spent.line().endswith("20% starting and waiting")


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
    first = sweep(asked, console, 0.0)
    assert first.spent is not None
    assert 0 < first.spent.training < first.spent.trials < first.spent.wall
    tell(first, asked, tmp_path / "runs" / "s", console)
    assert "were training steps" in screen.getvalue()
    again = sweep(asked, console, 0.0)
    assert again.finished == first.finished
    assert again.spent is None
