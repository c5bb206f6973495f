"""The bare loop does a sweep's work: the same models end at the same perplexities."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import bare_loop, sweep
from retsweep.spec import load_spec
from retsweep.tasks.base import Workspace
from tests.tasks.corpora import write_corpus


def test_the_bare_loop_trains_what_a_trial_trains(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "text")
    run = ["scale=tiny", "corpus=text", f"corpus.path={corpus}", "tokenizer=bytes", "budget.steps=5"]
    bare = list(bare_loop.loop([*run, f"cache={tmp_path / 'cache'}"]))
    spec = load_spec(run)
    row = spec.task(spec, Workspace(tmp_path, "cpu", tmp_path / "cache"))
    assert [one.valid_ppl for one in bare] == [pytest.approx(row["valid_ppl"], rel=1e-6)]


@pytest.mark.parametrize(("swept", "agree"), [([30.0, 20.0], True), ([30.0, 20.1], False), ([20.0], False)])
def test_other_perplexities_are_other_work(swept: list[float], agree: bool) -> None:
    bare = [{"valid_ppl": 20.0}, {"valid_ppl": 30.0}]
    screen = io.StringIO()
    assert sweep.same(bare, swept, Console(file=screen)) is agree
    assert ("not the same work" in screen.getvalue()) is not agree


def test_what_no_sweep_understands_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["scale=nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
