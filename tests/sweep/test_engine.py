"""Whole sweeps of toys in real worker processes: what fails, dies or is stopped, and goes on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retsweep.sweep import trial
from retsweep.sweep.command import sweep
from retsweep.sweep.engine import Outcome
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile, reconcile
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Study
from retsweep.sweep.variants import wanted
from retsweep.tracking import NoTracker
from tests.sweep.test_study import dead_process
from tests.sweep.toy import LOG

ROOT = Path(__file__).resolve().parents[2]
TOY = ("scale=tiny", "tracker=none", "device=cpu", "~task", "+task._target_=tests.sweep.toy.Toy", "study=s")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(*overrides: str) -> tuple[Outcome, str]:
    """A sweep from this process, and what it showed."""
    screen = io.StringIO()
    found = wanted([*TOY, *overrides])
    return sweep(found, Console(file=screen, width=200), time.monotonic()), screen.getvalue()


def start(*overrides: str) -> subprocess.Popen[str]:
    """The same as a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "retsweep", *TOY, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows() -> dict[int, dict[str, Any]]:
    """The rows on disk by seed."""
    found = [json.loads(path.read_text()) for path in Path("runs/s").glob("trials/*/row.json")]
    return {row["seed"]: row for row in found}


def events(here: Path) -> Counter[str]:
    log = here / "log"
    return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()


def until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_what_fails_is_named_stops_nothing_and_is_tried_again(here: Path) -> None:
    outcome, shown = run("seeds=4", "+task.fails_at=1", "workers=2")
    assert outcome.ending == "done"
    assert outcome.failed == ("Type A 2:2 seed 1",)
    assert len(outcome.finished) == 3
    assert "ValueError: the toy broke" in shown
    assert {seed: row["status"] for seed, row in rows().items()} == {0: "ok", 1: "failed", 2: "ok", 3: "ok"}
    failed = rows()[1]
    assert failed["error"] == "ValueError: the toy broke"
    folder = Path("runs/s/trials") / failed["spec_hash"]
    assert "and says so at length" in (folder / "error.txt").read_text()

    outcome, shown = run("seeds=4", "+task.fails_at=1", "workers=2")
    assert "3 of 4 finished before" in shown
    assert events(here) == {"began@0": 5, "ended": 3}, "only the failed one was tried again"


def test_a_trial_folder_holds_what_is_needed_to_run_it_again(here: Path) -> None:
    run("seed=3", "layout=type_c", "layout.attention=1", "+task.steps=2")
    (row,) = rows().values()
    config = Path("runs/s/trials") / row["spec_hash"] / "config.yaml"
    from retsweep.spec.configs import from_file
    from retsweep.sweep.variants import wanted_from

    (again,) = wanted_from(from_file(config), []).runs
    (first,) = wanted([*TOY, "seed=3", "layout=type_c", "layout.attention=1", "+task.steps=2"]).runs
    assert again.spec == first.spec
    assert "storage" not in config.read_text()
    shared = "architecture ar_ratio params macs_train_forward state_bytes_2048 git_commit variant_hash"
    for column in [*shared.split(), "torch_version", "device"]:
        assert column in row
    assert (row["architecture"], row["status"], row["valid_ppl"]) == ("Type C 1:3", "ok", 13.0)


def test_a_row_that_has_no_file_is_written_from_the_storage(here: Path) -> None:
    run()
    (row,) = rows().values()
    (Path("runs/s/trials") / row["spec_hash"] / "row.json").unlink()
    run()
    assert list(rows().values()) == [row]
    assert events(here)["ended"] == 1


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(here: Path) -> None:
    outcome, shown = run("seeds=2", "+task.dies_at=1", "workers=1")
    assert "Type A 2:2 seed 1: its worker died; it is tried again" in shown
    assert outcome.finished == ("Type A 2:2 seed 0", "Type A 2:2 seed 1")
    assert outcome.failed == ()
    assert events(here) == {"began@0": 3, "ended": 2}


def test_a_trial_that_kills_its_workers_is_given_up(here: Path) -> None:
    outcome, _ = run("seeds=2", "+task.dies_at=0", "+task.deaths=9", "workers=1", "retries=1")
    assert (outcome.finished, outcome.failed) == (("Type A 2:2 seed 1",), ("Type A 2:2 seed 0",))
    assert rows()[0]["status"] == "failed"
    assert "died, 2 times" in rows()[0]["error"]
    assert events(here) == {"began@0": 3, "ended": 1}


@pytest.mark.parametrize("noticed", ["at the next step", "at the end"])
def test_a_worker_that_lost_its_claim_leaves_no_trace(
    here: Path, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    planned = plan(wanted([*TOY, "+task.steps=3"]))
    ((spec_hash, run_),) = planned.items()
    url = storage_url(None, here)
    job = Job({spec_hash: run_}, url, "s", here, here / "cache", "cpu", NoTracker())
    study = open_and_reconcile(url, "s", job.labels)
    taken = study.claim(job.runs)
    assert taken is not None
    Study(url, "s")._note(taken.trial, "worker", dead_process())
    reconcile(Study(url, "s"), url, "s", job.labels, retries=1)  # it slept, and was taken for dead
    if noticed == "at the next step":
        monkeypatch.setattr(trial, "GRACE_SECONDS", 0)
    before = study.standing(job.runs)
    trial.run_trial(job, study, taken, lambda: False)
    assert study.standing(job.runs) == before
    assert before[spec_hash].state == "waiting"
    assert not (job.trial_folder(spec_hash) / "row.json").exists()
    assert events(here)["ended"] == (noticed == "at the end")


SLOW = ("+task.steps=400", "+task.seconds=0.01")


def test_a_limit_stops_cleanly_and_the_next_run_goes_on(here: Path) -> None:
    first, _ = run(*SLOW, "limit.minutes=0.08")
    saved = list(Path("runs/s/trials").glob("*/toy.saved"))
    assert first.ending == "limit"
    assert first.left == ("Type A 2:2",)
    assert rows() == {}
    if saved:  # a machine so busy that no worker began in 5 s has nothing to go on from
        assert int(saved[0].read_text()) > 0
    second, _ = run(*SLOW)
    assert (second.ending, second.left) == ("done", ())
    assert rows()[0]["first_step"] == (int(saved[0].read_text()) if saved else 0)


def test_ctrl_c_loses_nothing_and_a_killed_parent_takes_its_workers_along(here: Path) -> None:
    slow = ("+task.steps=2000", "+task.seconds=0.005")
    parent = start(*slow)
    until(lambda: events(here)["began@0"] == 1)
    time.sleep(0.3)
    parent.send_signal(signal.SIGINT)
    shown, _ = parent.communicate(timeout=60)
    assert parent.returncode == 130, shown
    assert "1 of 1 runs are left; the same command goes on" in shown
    (saved,) = Path("runs/s/trials").glob("*/toy.saved")
    stopped_at = int(saved.read_text())
    assert stopped_at > 0

    parent = start(*slow)
    until(lambda: events(here)[f"began@{stopped_at}"] == 1)
    (worker,) = children(parent.pid)
    parent.kill()
    parent.communicate(timeout=60)
    until(lambda: not alive(worker), seconds=1.0)

    began = time.monotonic()
    outcome, _ = run(*slow)
    assert outcome.finished == ("Type A 2:2",)
    assert time.monotonic() - began < 45, "it waited for a dead worker's grace"
    assert rows()[0]["first_step"] == stopped_at
    assert events(here)["ended"] == 1


def children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
