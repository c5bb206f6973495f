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
    bare = [{"label": "a", "valid_ppl": 20.0}, {"label": "b", "valid_ppl": 30.0}]
    rows = [{"label": "?", "status": "ok", "valid_ppl": ppl} for ppl in swept]
    screen = io.StringIO()
    assert sweep.same(bare, rows, Console(file=screen)) is agree
    assert ("not the same work" in screen.getvalue()) is not agree


@pytest.mark.parametrize(
    ("ppl", "row"),
    [
        (float("nan"), {"label": "b", "status": "ok", "valid_ppl": 30.0}),
        (30.0, {"label": "b", "status": "diverged@3"}),
    ],
)
def test_a_model_that_diverged_is_named(ppl: float, row: dict[str, object]) -> None:
    screen = io.StringIO()
    bare = [{"label": "b", "valid_ppl": ppl}]
    assert not sweep.same(bare, [row], Console(file=screen))
    assert "no perplexity of b in the" in screen.getvalue()


@pytest.mark.parametrize(
    "asked",
    [
        "protocol.accumulate=2",
        "protocol.precision=bf16",
        "protocol.compile=true",
        "protocol.head_tokens=64",
        "protocol.evaluation.every=2",
        "device=cuda",
        "task=count",
    ],
)
def test_what_the_bare_loop_does_not_do_is_refused(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["scale=tiny", asked]) == 2
    said = capsys.readouterr().err
    assert f"{asked.split('=')[0]}=" in said
    assert said.count("\n") == 1


def test_data_is_there_before_a_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(sweep, "plan", lambda runs: order.append("data"))
    monkeypatch.setattr(sweep, "compare", lambda asked: len(order))
    assert sweep.main(["scale=tiny"]) == 1
    assert order == ["data"]


def test_a_process_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "plan", lambda runs: None)
    monkeypatch.setattr(sweep.sys, "executable", "/bin/false")
    assert sweep.main(["scale=tiny"]) == 2
    assert capsys.readouterr().err == (
        "benchmarks.sweep: the bare loop ended with status 1; what it said is above\n"
    )


def test_what_no_sweep_understands_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["scale=nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
