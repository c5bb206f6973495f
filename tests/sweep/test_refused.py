"""A launcher that starts no further worker: a mistake the first time, later a matter of waiting."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retsweep.spec import SpecError
from retsweep.sweep import command, engine
from retsweep.sweep.engine import Engine, Outcome
from retsweep.sweep.plan import plan
from retsweep.sweep.processes import identity
from retsweep.sweep.variants import wanted
from retsweep.sweep.worker import work
from retsweep.sweep.workers import Refused
from tests.sweep.test_engine import TOY, prepare

FULL = "the queue is full"


class Member:
    """A worker that is over as soon as it is started; one that ``works`` has done all that waited."""

    def __init__(self, job: Any, place: int, works: bool) -> None:
        self.place, self.log = place, Path("log")
        self.identity: Mapping[str, str | int] = identity()
        if works:
            work(job, threading.Event())

    def ended(self) -> int | None:
        return 0

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


class Queue:
    """One place; what becomes of each submission is said beforehand, and from the last on it is that."""

    device, count = "cpu", 1

    def __init__(self, *answers: str) -> None:
        self._answers, self.asked = list(answers), 0

    def check_storage(self, url: str) -> None: ...

    def start(self, job: Any, places: Sequence[int]) -> Iterator[Member]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer == "refuses":
            raise Refused(FULL)
        for place in places:
            yield Member(job, place, answer == "works")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch)
    monkeypatch.setattr(engine, "REFUSED_SECONDS", 0.1)
    monkeypatch.setattr(engine, "REFUSED_TRIES", 3)


def run(queue: Queue, screen: io.StringIO) -> Outcome:
    asked = wanted([*TOY])
    job = command._job(asked, plan(asked))
    return Engine(job, asked.settings, queue, Console(file=screen, width=200), time.monotonic()).run()


def test_a_later_refusal_is_said_once_and_asked_again() -> None:
    queue, screen = Queue("idles", "refuses", "refuses", "works"), io.StringIO()
    outcome = run(queue, screen)
    assert (outcome.finished, queue.asked) == (("Type A 2:2",), 4)
    assert screen.getvalue().count(FULL) == 1
    assert f"{FULL}; asked again every 0.1 s\n" in screen.getvalue()


def test_the_first_refusal_ends_the_command() -> None:
    queue = Queue("refuses")
    with pytest.raises(SpecError, match=f"^{FULL}$"):
        run(queue, io.StringIO())
    assert queue.asked == 1


def test_refusals_for_long_with_no_worker_left_end_it_in_a_line() -> None:
    queue = Queue("idles", "refuses")
    with pytest.raises(SpecError, match=f"^{FULL}; given up after 3 tries with no worker left$"):
        run(queue, io.StringIO())
    assert queue.asked == 4
