"""What a command says before it starts."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from retsweep.sweep import command
from retsweep.sweep.engine import Outcome
from retsweep.sweep.variants import wanted

PUBLISHED = ("protocol=published", "scale=tiny", "device=cpu", "tracker=none")


class NoEngine:
    """Runs nothing."""

    def __init__(self, *_: object) -> None: ...

    def run(self) -> Outcome:
        return Outcome("done", (), (), ())


@pytest.mark.parametrize(("task", "times"), [("train", 1), ("count", 0)])
def test_published_defects_are_told_once_where_something_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, times: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "Engine", NoEngine)
    monkeypatch.setattr(command, "plan", lambda wanted: {})
    screen = io.StringIO()
    found = wanted([*PUBLISHED, f"task={task}", "seeds=3"])
    command.sweep(found, Console(file=screen, width=400), 0.0)
    assert screen.getvalue().count("PUBLISHED DEFECTS ARE ON: ") == times
    assert screen.getvalue().count("(mask=leaky)") == times


def test_a_sound_protocol_has_none() -> None:
    assert command.defects_in(wanted(["scale=tiny", "device=cpu", "tracker=none"]).runs) == []
