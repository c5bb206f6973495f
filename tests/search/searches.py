"""Searches of toys in this process, for the tests: what the command sets up, and a worker's loop."""

from __future__ import annotations

import dataclasses
import os
import pickle
import threading
from collections import Counter
from pathlib import Path

import pytest

from retsweep.search.command import Asked
from retsweep.search.driver import Driver
from retsweep.search.proposals import Proposal
from retsweep.spec.load import resolve
from retsweep.sweep import command
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.worker import work
from tests.search.toy import LOG

TOY = (
    *("scale=tiny", "tracker=none", "device=cpu", "study=s", "protocol.steps=9"),
    *("~task", "+task._target_=tests.search.toy.Curve"),
)
#: A space of letters alone, in one bucket.
PLAIN = (
    *("+sweep=pareto", "search.space.letters=[A,R]", "search.halving.buckets=1"),
    *(f"search.space.{name}=null" for name in ("heads", "split", "form", "ffn", "decay")),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    return tmp_path


def asked(*overrides: str) -> Asked:
    """Raises SpecError."""
    arguments = [*TOY, *PLAIN, *overrides]
    composed = command.read(arguments)
    return Asked.of(resolve(composed), command.asked(composed, arguments), arguments)


def begun(*overrides: str) -> Job:
    """A search that has begun, or goes on: what workers get."""
    found = asked(*overrides)
    job = command._job(found.wanted, plan(found.wanted))
    driver = found.driver(job)
    study = found.begin(job, driver)
    return dataclasses.replace(job, feed=driver, runs=driver.joined(job, study))


def searched(*overrides: str) -> Job:
    """A search that one worker has brought to its end."""
    job = begun(*overrides)
    reconciled(job)
    work(other(job), threading.Event())
    return job


def reconciled(job: Job) -> None:
    """What a command does first."""
    open_and_reconcile(job.url, job.study, job.labels)


def other(job: Job) -> Job:
    """``job`` as another process has it."""
    return pickle.loads(pickle.dumps(job))  # type: ignore[no-any-return]


def working(job: Job) -> int:
    """Starts a worker in a process of its own: its id. It exits with 1 if it raises."""
    process = os.fork()
    if not process:
        code = 1
        try:
            work(other(job), threading.Event())
            code = 0
        finally:
            os._exit(code)
    return process


def killed(job: Job) -> int:
    """Such a worker: the signal that ended it."""
    return os.WTERMSIG(os.waitpid(working(job), 0)[1])


def driver(job: Job) -> Driver:
    assert isinstance(job.feed, Driver)
    return job.feed


def proposals(job: Job) -> list[Proposal]:
    return driver(job).proposals(job, Study(job.url, job.study)).all()


def entries(job: Job) -> dict[str, Entry]:
    """The ledger's, by pattern."""
    study = Study(job.url, job.study)
    standing = study.standing({one.hash for one in proposals(job) if one.hash})
    return {pattern(one): standing[one.hash] for one in proposals(job) if one.hash in standing}


def pattern(one: Proposal) -> str:
    return "".join(one.params[name] for name in sorted(one.params) if name.startswith("letter_"))


def trained(here: Path) -> Counter[str]:
    """Steps that were taken, by hash, in whatever process."""
    found: Counter[str] = Counter()
    for line in (here / "log").read_text().splitlines():
        key, first, last = line.split()
        found[key] += int(last) - int(first)
    return found
