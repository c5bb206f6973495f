"""The study as a queue and ledger: each run once, whoever asks, whoever dies."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import sqlalchemy

from retsweep.spec import SpecError
from retsweep.spec.settings import Heartbeat
from retsweep.sweep import study as study_module
from retsweep.sweep.processes import here, identity, is_dead
from retsweep.sweep.reconcile import open_and_reconcile, reconcile
from retsweep.sweep.storage import check_folder, check_reachable, storage_url
from retsweep.sweep.study import ClaimLost, Study

WANTED = {"a": "run a", "b": "run b"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return storage_url(None, tmp_path)


def released_at_once(url: str, folder: Path, processes: int, trials: int, how: str) -> list[list[str]]:
    """What each of so many processes ran, all of them let loose at the same moment."""
    gate = folder / "gate"
    outs = [folder / f"out-{number}" for number in range(processes)]
    started = [
        subprocess.Popen([sys.executable, "-m", "tests.sweep.claims", url, gate, out, str(trials), how])
        for out in outs
    ]
    deadline = time.monotonic() + 120
    while not all(Path(f"{out}.ready").exists() for out in outs):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in started)
        time.sleep(0.01)
    gate.touch()
    assert [process.wait(120) for process in started] == [0] * processes
    return [out.read_text().split() for out in outs]


@pytest.mark.slow
def test_six_workers_run_48_trials_exactly_once(url: str, tmp_path: Path) -> None:
    wanted = {f"hash{number}": f"trial {number}" for number in range(48)}
    study = open_and_reconcile(url, "s", wanted)
    ran = released_at_once(url, tmp_path, 6, 48, "open")
    assert sorted(chain(*ran)) == sorted(wanted)
    assert sum(map(bool, ran)) > 1, "one process did everything: they were not released at once"
    assert [entry.state for entry in study.entries()] == ["complete"] * 48


def test_parents_that_start_a_fresh_study_at_once_enqueue_each_run_once(url: str, tmp_path: Path) -> None:
    ran = released_at_once(url, tmp_path, 3, 12, "fresh")
    assert sorted(chain(*ran)) == sorted(f"hash{number}" for number in range(12))
    assert len(Study(url, "s").entries()) == 12


def test_an_empty_queue_invents_no_trial(url: str) -> None:
    study = open_and_reconcile(url, "s", {})
    assert study.claim(WANTED) is None
    assert study.entries() == []


def test_a_worker_takes_only_what_it_knows(url: str) -> None:
    study = open_and_reconcile(url, "s", WANTED)
    taken = study.claim({"b"})
    assert taken is not None
    assert taken.hash == "b"
    assert study.claim({"b"}) is None


def test_reconciling_again_adds_nothing(url: str) -> None:
    study = open_and_reconcile(url, "s", WANTED)
    first = study.claim(WANTED)
    assert first is not None
    study.complete(first.trial, {"valid_ppl": 2.0})
    study.claim(WANTED)
    open_and_reconcile(url, "s", WANTED)
    reconcile(study, url, "s", WANTED, retries=5)
    assert {key: entry.state for key, entry in study.standing(WANTED).items()} == {
        "a": "complete",
        "b": "running",
    }
    assert len(study.entries()) == 2


def test_a_failed_run_waits_for_the_next_start(url: str) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    taken = study.claim(WANTED)
    assert taken is not None
    study.fail(taken.trial, {"status": "failed"}, "ValueError: no")
    reconcile(study, url, "s", WANTED, retries=5)
    assert study.standing(WANTED)["a"].state == "failed"
    assert study.standing(WANTED)["a"].error == "ValueError: no"
    again = open_and_reconcile(url, "s", {"a": "run a"})
    assert again.standing(WANTED)["a"].state == "waiting"


def test_a_released_trial_waits_again_and_keeps_its_number(url: str) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    taken = study.claim(WANTED)
    assert taken is not None
    study.beat(taken.trial, (3, 10))
    study.release(taken.trial)
    with pytest.raises(ClaimLost):
        study.beat(taken.trial, (4, 10))  # nobody has it, so this process has not
    again = Study(url, "s").claim(WANTED)
    assert again is not None
    assert (again.trial, again.steps) == (taken.trial, (3, 10))


def forge_worker(url: str, trial: int, worker: dict[str, str | int]) -> None:
    """As if ``trial`` ran in that process."""
    study = Study(url, "s")
    study._note(trial, "worker", worker)


def dead_process() -> dict[str, str | int]:
    process = subprocess.Popen([sys.executable, "-c", ""])
    born = identity(process.pid)
    process.wait()
    return born


def test_the_dead_are_known_at_once_and_replaced_so_many_times(url: str) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    for attempt in range(3):
        taken = study.claim(WANTED)
        assert taken is not None
        assert taken.attempt == attempt
        forge_worker(url, taken.trial, dead_process())
        reconcile(study, url, "s", WANTED, retries=2)
    assert study.claim(WANTED) is None
    standing = study.standing(WANTED)["a"]
    assert (standing.state, standing.attempt) == ("lost", 2)
    assert open_and_reconcile(url, "s", {"a": "run a"}).standing(WANTED)["a"].attempt == 0


def test_a_silent_worker_elsewhere_is_taken_for_dead_after_the_grace(url: str) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    taken = study.claim(WANTED)
    assert taken is not None
    forge_worker(url, taken.trial, {"where": "another machine", "pid": 1, "born": ""})
    reconcile(study, url, "s", WANTED, retries=1)
    assert study.standing(WANTED)["a"].state == "running"
    let_the_grace_pass(url)
    reconcile(study, url, "s", WANTED, retries=1)
    standing = study.standing(WANTED)["a"]
    assert (standing.state, standing.attempt) == ("waiting", 1)


def let_the_grace_pass(url: str) -> None:
    with sqlalchemy.create_engine(url).begin() as connection:
        seconds = Heartbeat().grace + 5
        aged = f"UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-{seconds} seconds')"
        assert connection.execute(sqlalchemy.text(aged)).rowcount == 1


def test_a_trial_taken_and_not_yet_signed_goes_by_the_databases_clock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    with monkeypatch.context() as patched:
        patched.setattr(study_module, "identity", dies)
        with pytest.raises(ZeroDivisionError):
            study.claim(WANTED)
    with monkeypatch.context() as patched:  # another machine's clock on the wall
        patched.setenv("TZ", "XXX-14")
        time.tzset()
        reconcile(Study(url, "s"), url, "s", WANTED, retries=1)
    time.tzset()
    assert study.standing(WANTED)["a"].state == "running"
    let_the_grace_pass(url)
    reconcile(study, url, "s", WANTED, retries=1)
    standing = study.standing(WANTED)["a"]
    assert (standing.state, standing.attempt) == ("waiting", 0), "nobody had begun it"


def dies() -> dict[str, str | int]:
    raise ZeroDivisionError


def test_a_released_trial_is_not_judged_by_the_heartbeats_of_its_last_worker(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    taken = study.claim(WANTED)
    assert taken is not None
    study.release(taken.trial)
    let_the_grace_pass(url)
    with monkeypatch.context() as patched:
        patched.setattr(study_module, "identity", dies)
        with pytest.raises(ZeroDivisionError):
            study.claim(WANTED)
    reconcile(study, url, "s", WANTED, retries=1)
    assert [entry.state for entry in study.entries()] == ["running"]


@pytest.mark.parametrize(("noted", "state"), [("row", "lost"), ("error", "failed")])
def test_a_worker_buried_while_it_reports_a_failure(
    url: str, monkeypatch: pytest.MonkeyPatch, noted: str, state: str
) -> None:
    """What it managed to say decides: a run that says what it raised, and has a row, has failed."""
    study = open_and_reconcile(url, "s", {"a": "run a"})
    taken = study.claim(WANTED)
    assert taken is not None
    note = study._note

    def buried_after(trial: int, key: str, value: object) -> None:
        note(trial, key, value)
        if key == noted:
            forge_worker(url, trial, dead_process())
            Study(url, "s").bury()

    monkeypatch.setattr(study, "_note", buried_after)
    with pytest.raises(ClaimLost):
        study.fail(taken.trial, {"status": "failed"}, "ValueError: no")
    (entry,) = Study(url, "s").entries()
    assert (entry.state, entry.row) == (state, {"status": "failed"})


def test_a_worker_that_lost_its_claim_can_write_nothing(url: str) -> None:
    study = open_and_reconcile(url, "s", {"a": "run a"})
    taken = study.claim(WANTED)
    assert taken is not None
    forge_worker(url, taken.trial, dead_process())
    reconcile(Study(url, "s"), url, "s", WANTED, retries=1)
    successor = Study(url, "s").claim(WANTED)
    assert successor is not None
    for attempt in (
        lambda: study.beat(taken.trial),
        lambda: study.beat(taken.trial, (1, 2)),
        lambda: study.complete(taken.trial, {"valid_ppl": 1.0}),
        lambda: study.fail(taken.trial, {}, "late"),
        lambda: study.release(taken.trial),
    ):
        with pytest.raises(ClaimLost):
            attempt()
    assert study.standing(WANTED)["a"] == successor_running(study, successor.trial)


def successor_running(study: Study, trial: int) -> object:
    (entry,) = [entry for entry in study.entries() if entry.trial == trial]
    assert (entry.state, entry.row, entry.error) == ("running", None, None)
    return entry


def test_who_is_alive() -> None:
    assert not is_dead(identity())
    assert is_dead(dead_process())
    assert is_dead({**identity(), "born": "0"}), "the number belongs to another process by now"
    assert not is_dead({"where": "another machine", "pid": os.getpid(), "born": "0"})
    assert here() == identity()["where"]


def test_a_database_that_cannot_be_used_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough that SQLite must look at it\n" * 99)
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name, said in [
        ("text", "text cannot be used: file is not a database"),
        ("folder", "folder cannot be used: unable to open database file"),
        ("text/study.db", "text cannot be written: Not a directory; runs=FOLDER"),
    ]:
        with pytest.raises(SpecError, match=said) as caught:
            check_reachable(storage_url(f"sqlite:///{tmp_path}/{name}", tmp_path))
        assert "\n" not in str(caught.value)
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(SpecError, match="cannot be shared by workers"):
            storage_url(url, tmp_path)
    check_reachable(storage_url(f"sqlite:///{tmp_path}/not/yet/there.db", tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_good_database_is_as_it_was_after_the_check(url: str, tmp_path: Path) -> None:
    open_and_reconcile(url, "s", WANTED)
    check_reachable(url)
    check_folder(tmp_path)
    assert list(Study(url, "s").standing(WANTED)) == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs Unix users")
def test_what_may_not_be_written_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: its parents are closed to others
        folder = Path(name)
        url = storage_url(None, folder)
        open_and_reconcile(url, "s", WANTED)
        database = folder / "study.db"
        folder.chmod(0o555)
        with somebody_else(), pytest.raises(SpecError, match="cannot be written: Permission denied"):
            check_folder(folder / "runs" / "s")
        folder.chmod(0o777)
        database.chmod(0o444)
        with somebody_else(), pytest.raises(SpecError, match="cannot be used: "):
            check_reachable(url)


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Root may write everywhere: as root, be nobody for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
