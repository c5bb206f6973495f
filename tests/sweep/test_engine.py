"""Whole sweeps of toys in real worker processes: what fails, dies or is stopped, and goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from retsweep.__main__ import main
from retsweep.sweep import engine, trial
from retsweep.sweep.command import sweep
from retsweep.sweep.engine import Outcome
from retsweep.sweep.mirror import mirror
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile, reconcile
from retsweep.sweep.rows import code
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.variants import wanted
from retsweep.sweep.workers import Worker
from retsweep.tracking import NoTracker
from tests.sweep.test_study import dead_process
from tests.sweep.toy import LOG, hurry

ROOT = Path(__file__).resolve().parents[2]
TOY = ("scale=tiny", "tracker=none", "device=cpu", "~task", "+task._target_=tests.sweep.toy.Toy", "study=s")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path, monkeypatch)
    return tmp_path


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv(LOG, str(folder / "log"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(*overrides: str, screen: io.StringIO | None = None) -> tuple[Outcome, str]:
    """A sweep from this process, and what it showed."""
    screen = screen or io.StringIO()
    found = wanted([*TOY, *overrides])
    return sweep(found, Console(file=screen, width=200), time.monotonic()), screen.getvalue()


def rows() -> dict[int, dict[str, Any]]:
    """The rows on disk by seed."""
    found = [json.loads(path.read_text()) for path in Path("runs/s").glob("trials/*/row.json")]
    return {row["seed"]: row for row in found}


def events(here: Path) -> Counter[str]:
    log = here / "log"
    return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()


def until(condition: Callable[[], object], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


#: Four seeds, of which one raises and one kills its worker, once.
FOUR = (
    *("layout=type_c", "layout.attention=1", "workers=2", "+task.steps=2"),
    *("+task.fails_at=1", "+task.dies_at=2", "+task.says=hm"),
)


@dataclass(frozen=True)
class Swept:
    """A sweep of FOUR that has ended: its folder (to be copied, not touched) and what it told."""

    folder: Path
    outcome: Outcome
    shown: str


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("four")
    with pytest.MonkeyPatch.context() as patched:
        prepare(folder, patched)
        outcome, shown = run(*FOUR, "seeds=4")
    return Swept(folder, outcome, shown)


@pytest.fixture
def swept(here: Path, four: Swept) -> Swept:
    """The same in a copy, which is the working directory."""
    shutil.copytree(four.folder, here, dirs_exist_ok=True)
    return dataclasses.replace(four, folder=here)


def trial_folder(row: dict[str, Any]) -> Path:
    return Path("runs/s/trials") / row["spec_hash"]


def test_what_fails_is_named_stops_nothing_and_is_tried_again(swept: Swept) -> None:
    assert swept.outcome.ending == "done"
    assert swept.outcome.failed == ("Type C 1:3 seed 1",)
    assert swept.outcome.finished == tuple(f"Type C 1:3 seed {seed}" for seed in (0, 2, 3))
    assert "ValueError: the toy broke" in swept.shown
    assert {seed: row["status"] for seed, row in rows().items()} == {0: "ok", 1: "failed", 2: "ok", 3: "ok"}
    assert rows()[1]["error"] == "ValueError: the toy broke"
    assert "and says so at length" in (trial_folder(rows()[1]) / "error.txt").read_text()
    before = events(swept.folder)
    _, shown = run(*FOUR, "seeds=4")
    assert "3 of 4 finished before" in shown
    assert events(swept.folder) - before == {"began@0": 1, "stepped": 1}, (
        "only the failed one was tried again"
    )


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(swept: Swept) -> None:
    assert "Type C 1:3 seed 2: its worker died; it is tried again" in swept.shown
    assert events(swept.folder) == {"began@0": 5, "stepped": 5, "ended": 3}


def test_workers_that_said_something_are_named(swept: Swept) -> None:
    said = [f"runs/s/{log}" for log in ("worker-0.log", "worker-1.log") if Path("runs/s", log).exists()]
    assert said
    assert f"workers had something to say: {', '.join(said)}\n" in swept.shown
    _, shown = run(*FOUR)
    assert "something to say" not in shown, "that was then"


@pytest.mark.usefixtures("swept")
def test_a_trial_folder_holds_what_is_needed_to_run_it_again() -> None:
    from retsweep.spec.configs import from_file
    from retsweep.sweep.variants import wanted_from

    row = rows()[3]
    (again,) = wanted_from(from_file(trial_folder(row) / "config.yaml"), []).runs
    (first,) = wanted([*TOY, *FOUR, "seed=3"]).runs
    assert again.spec == first.spec
    assert "storage" not in (trial_folder(row) / "config.yaml").read_text()
    shared = "architecture ar_ratio params macs_train_forward state_bytes_2048 git_commit variant_hash"
    for column in [*shared.split(), "torch_version", "device"]:
        assert column in row
    assert (row["architecture"], row["status"], row["valid_ppl"]) == ("Type C 1:3", "ok", 13.0)


@pytest.mark.parametrize("stale", ["absent", "failed"])
def test_a_row_that_has_no_file_or_an_old_one_is_written_from_the_storage(swept: Swept, stale: str) -> None:
    row = rows()[0]
    folder = trial_folder(row)
    if stale == "absent":
        (folder / "row.json").unlink()
    else:
        (folder / "row.json").write_text(json.dumps({**row, "status": "failed", "error": "an earlier try"}))
        (folder / "error.txt").write_text("an earlier try")
    before = events(swept.folder)
    run(*FOUR)
    assert rows()[0] == row
    assert not (folder / "error.txt").exists()
    assert events(swept.folder) == before, "it was not run again for that"


@pytest.mark.usefixtures("swept")
def test_a_row_file_that_is_right_is_left_alone() -> None:
    file = trial_folder(rows()[0]) / "row.json"
    before = file.stat()
    _, shown = run(*FOUR)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert "1 of 1 finished before\n" in shown


@pytest.mark.usefixtures("swept")
def test_rows_of_other_code_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    written_by = code(rows()[0])
    monkeypatch.setattr(engine, "code_here", lambda: "commit 0123456789")
    _, shown = run(*FOUR)
    assert f"1 of 1 finished before, some or all by {written_by}; this is commit 0123456789" in shown


def test_a_trial_that_kills_its_workers_is_given_up(here: Path) -> None:
    outcome, shown = run("+task.dies_at=0", "+task.deaths=9", "retries=1")
    assert (outcome.finished, outcome.failed) == ((), ("Type A 2:2",))
    assert "Type A 2:2: its worker died; it is given up" in shown
    assert rows()[0]["status"] == "failed"
    assert "died, 2 times" in rows()[0]["error"]
    error = Path("runs/s/trials") / rows()[0]["spec_hash"] / "error.txt"
    assert "died, 2 times" in error.read_text()
    assert events(here) == {"began@0": 2, "stepped": 2}


def claimed(here: Path) -> tuple[Job, Study, Entry]:
    """A study of one toy, which this process has taken."""
    planned = plan(wanted([*TOY, "+task.steps=3"]))
    url = storage_url(None, here)
    job = Job(planned, url, "s", here, here / "cache", "cpu", NoTracker())
    study = open_and_reconcile(url, "s", job.labels)
    taken = study.claim(job.runs)
    assert taken is not None
    return job, study, taken


@pytest.mark.parametrize("noticed", ["at the next step", "at the end"])
def test_a_worker_that_lost_its_claim_leaves_no_trace(
    here: Path, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    job, study, taken = claimed(here)
    url, spec_hash = job.url, taken.hash
    Study(url, "s")._note(taken.trial, "worker", dead_process())
    reconcile(Study(url, "s"), url, "s", job.labels, retries=1)  # it slept, and was taken for dead
    if noticed == "at the next step":
        impatient = SimpleNamespace(every=2, grace=0)  # it asks before every step
        monkeypatch.setattr(study.patience, "heartbeat", impatient)
    before = study.standing(job.runs)
    trial.run_trial(job, study, taken, lambda: False)
    assert study.standing(job.runs) == before
    assert before[spec_hash].state == "waiting"
    assert not (job.trial_folder(spec_hash) / "row.json").exists()
    assert events(here)["ended"] == (noticed == "at the end")


def test_a_full_disk_sends_the_run_back_and_the_machine_away(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other machines may have space; this one has not, and one line says so. Nothing counts as failed."""
    command = [*TOY, "+task.steps=2", "+task.full_at=0", "retries=0"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "runs/s: no space left on the disk; workers save what they can" in captured.out
    assert "no space left in runs/s: 1 of 1 runs are left; the same command goes on" in captured.out
    assert captured.err == ""
    assert Path("runs/s/worker-0.log").read_text() == "retsweep: runs/s: no space left on the disk\n"
    (entry,) = ledger().entries()
    assert (entry.state, entry.attempt, rows()) == ("waiting", 0, {})
    hurry()
    assert main(command) == 0
    assert list(rows()) == [0]


def test_a_row_is_in_the_storage_before_the_disk_is_full(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, study, taken = claimed(here)

    def full(folder: Path, row: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trial, "write_row", full)
    with pytest.raises(trial.DiskFull, match=r"no space left on the disk$"):
        trial.run_trial(job, study, taken, lambda: False)
    (entry,) = study.entries()
    assert entry.state == "complete"
    assert entry.row is not None
    assert not (job.trial_folder(taken.hash) / "row.json").exists()
    mirror(job, study.standing(job.runs), retries=1)
    assert json.loads((job.trial_folder(taken.hash) / "row.json").read_text()) == entry.row


#: It would run for minutes, on any machine, unless it is told to hurry.
LONG = ("+task.steps=20000", "+task.seconds=0.01")


@contextlib.contextmanager
def meanwhile(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """``act`` on a thread of its own. It hears when the block is left, and has ended by then."""
    over = threading.Event()
    thread = threading.Thread(target=act, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sends(number: int, when: Callable[[], object], over: threading.Event) -> None:
    """Signals this process once, as soon as ``when`` holds, unless it is ``over`` before."""
    while not when():
        if over.wait(0.02):
            return
    os.kill(os.getpid(), number)


def saved() -> int:
    (file,) = Path("runs/s/trials").glob("*/toy.saved")
    return int(file.read_text())


@pytest.mark.slow
def test_a_limit_stops_cleanly_and_the_next_run_goes_on_also_after_its_parent_was_killed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hour is over as soon as a step is done, however slow the machine is.
    hour = SimpleNamespace(
        monotonic=lambda: time.monotonic() + 3600 * bool(events(here)["stepped"]), sleep=time.sleep
    )
    with monkeypatch.context() as patched:
        patched.setattr(engine, "time", hour)
        first, _ = run(*LONG, "limit.minutes=60")
    assert (first.ending, first.left) == ("limit", ("Type A 2:2",))
    assert rows() == {}
    stopped_at = saved()
    assert stopped_at > 0

    with subprocess.Popen([sys.executable, "-m", "retsweep", *TOY, *LONG]) as parent:
        try:
            until(lambda: events(here)["stepped"] == 2 or parent.poll() is not None)
            (running,) = ledger().entries()
        finally:
            parent.kill()
    assert running.worker is not None
    until(lambda: not alive(running.worker["pid"]), seconds=10)

    # Not by the heartbeat: with this grace the next command would wait for days.
    hurry()
    last, _ = run(*LONG, f"heartbeat.grace={10**6}")
    assert (last.ending, last.finished, last.left) == ("done", ("Type A 2:2",), ())
    assert rows()[0]["first_step"] == stopped_at
    assert events(here) == {"began@0": 1, f"began@{stopped_at}": 2, "stepped": 3, "ended": 1}


def test_sigterm_stops_cleanly(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with meanwhile(lambda over: sends(signal.SIGTERM, lambda: events(here)["stepped"], over)):
        assert main([*TOY, *LONG]) == 143
    shown = capsys.readouterr().out
    assert "stopping: workers save what they have (again to kill them)" in shown
    assert "terminated: 1 of 1 runs are left; the same command goes on" in shown
    assert saved() > 0
    assert events(here)["ended"] == 0
    (entry,) = ledger().entries()
    assert (entry.state, entry.attempt) == ("waiting", 0)


def test_ctrl_c_while_a_worker_starts_reaches_that_worker(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Worker):
        def __init__(self, *arguments: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().__init__(*arguments)

    monkeypatch.setattr("retsweep.sweep.workers.Worker", Interrupted)
    assert main([*TOY, *LONG]) == 130
    assert "interrupted: 1 of 1 runs are left; the same command goes on" in capsys.readouterr().out
    (entry,) = ledger().entries()
    assert (entry.state, entry.attempt) == ("waiting", 0)


def test_a_second_signal_kills(here: Path) -> None:
    screen = io.StringIO()

    def twice(over: threading.Event) -> None:
        sends(signal.SIGINT, lambda: events(here)["stepped"], over)
        sends(signal.SIGTERM, lambda: "stopping: workers save" in screen.getvalue(), over)

    with meanwhile(twice):
        outcome, _ = run(*LONG, "+task.deaf=true", screen=screen)
    assert (outcome.ending, outcome.left) == ("interrupted", ("Type A 2:2",))
    assert "died" not in screen.getvalue()
    assert events(here) == {"began@0": 1, "stepped": 1}
    (killed, again) = ledger().entries()
    assert (killed.state, again.state) == ("lost", "waiting")
    assert killed.worker is not None
    assert not alive(killed.worker["pid"])


def test_a_storage_that_fails_on_the_way_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a server that goes away: the tables are dropped under a running sweep."""
    workers: list[Worker] = []

    class Known(Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            workers.append(self)

    def drop(over: threading.Event) -> None:
        while not events(here)["stepped"]:
            if over.wait(0.02):
                return
        with contextlib.closing(sqlite3.connect("runs/s/study.db", 60)) as connection:
            connection.execute("DROP TABLE trials")
            connection.commit()

    monkeypatch.setattr("retsweep.sweep.workers.Worker", Known)
    with meanwhile(drop):
        assert main([*TOY, *LONG, "+task.deaf=true"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("retsweep: storage sqlite:///")
    assert "no such table" in error
    assert error.count("\n") == 1
    assert [worker.ended() for worker in workers] == [-signal.SIGKILL]


def ledger() -> Study:
    return Study(storage_url(None, Path("runs/s")), "s")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
