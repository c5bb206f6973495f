"""What is shown: lines that say what happened, and an estimate that can be believed."""

from __future__ import annotations

import dataclasses
import io
import time

import pytest
from rich.console import Console

from retsweep.sweep import progress
from retsweep.sweep.progress import Estimate, Screen, clock, row_line
from retsweep.sweep.study import Entry

RUNNING = Entry(
    trial=1,
    hash="a",
    state="running",
    attempt=0,
    steps=(0, 0),
    worker=None,
    error=None,
    row=None,
)


def entry(state: str, done: int = 0, total: int = 0, **more: object) -> Entry:
    return dataclasses.replace(RUNNING, state=state, steps=(done, total), **more)  # type: ignore[arg-type]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


def test_the_time_left_goes_by_the_steps_of_all_trials(now: list[float]) -> None:
    estimate = Estimate(4)
    assert estimate.seconds_left() is None
    estimate.see({"a": entry("running"), "b": entry("running"), "c": entry("waiting"), "d": entry("waiting")})
    assert estimate.seconds_left() is None
    now[0] += 50
    estimate.see({"a": entry("running", 0, 100), "b": entry("running", 0, 100)})
    now[0] += 50
    estimate.see({"a": entry("complete", 100, 100), "b": entry("running", 50, 100)})
    assert estimate.done == 1.5
    assert estimate.seconds_left() == pytest.approx(100 * 2.5 / 1.5)


def test_what_an_earlier_command_did_is_not_counted_as_speed(now: list[float]) -> None:
    estimate = Estimate(3)
    estimate.see({"a": entry("complete"), "b": entry("waiting"), "c": entry("waiting")})
    now[0] += 10
    estimate.see({"b": entry("running", 80, 100)})  # resumed from a checkpoint
    assert estimate.seconds_left() is None
    now[0] += 10
    estimate.see({"b": entry("running", 90, 100)})
    assert estimate.seconds_left() == pytest.approx(20 * 1.1 / 0.1)


def test_each_row_is_shown_once_when_it_appears() -> None:
    screen = io.StringIO()
    row = {"valid_ppl": 31.204, "macs_fvcore": 11_506_000_000, "macs_train_forward": 1, "seconds": 92.4}
    with Screen(Console(file=screen, width=200), {"a": "Type A 3:9", "b": "RetNet"}) as shown:
        shown.update({"a": entry("running", 1, 2)})
        for _ in range(3):
            shown.update(
                {
                    "a": entry("complete", row=row),
                    "b": entry("failed", row={"status": "failed", "error": "E: x"}),
                }
            )
    lines = screen.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["Type", "A", "3:9", "valid_ppl", "31.20", "11.51", "GMACs", "1", "min", "32", "s"],
        ["RetNet", "failed", "E:", "x"],
    ]


def test_a_terminal_gets_bars_and_elsewhere_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    with Screen(Console(file=terminal, width=120, force_terminal=True), {"a": "RetNet"}) as shown:
        shown.update({"a": entry("running", 30, 100)})
    assert "RetNet" in terminal.getvalue()
    assert "30/100" in terminal.getvalue()
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    plain = io.StringIO()
    with Screen(Console(file=plain, width=120), {"a": "RetNet"}) as shown:
        shown.update({"a": entry("running", 30, 100)})
    assert plain.getvalue().startswith("0/1 finished, 1 running")


def test_a_diverged_run_is_named() -> None:
    assert "diverged@120" in row_line("RetNet", {"status": "diverged@120", "valid_ppl": float("inf")})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
