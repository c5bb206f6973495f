"""What of a storage's errors is waited for, and what is not."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError

from retsweep.spec import SpecError, load_run
from retsweep.spec.settings import Heartbeat
from retsweep.sweep import patience as patience_module
from retsweep.sweep import storage
from retsweep.sweep.patience import Patience, StorageLost, is_passing
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Study, takeable
from tests.sweep.test_study import dead_process, forge_worker


class Said(Exception):
    """As a driver's error that carries PostgreSQL's code."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("first line\nwhat counts")
        self.sqlstate = sqlstate


def failed(sqlstate: str | None, kind: type[sqlalchemy.exc.DBAPIError]) -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = kind("SELECT 1", None, Said(sqlstate))
    return error


@pytest.mark.parametrize(
    ("sqlstate", "passing"),
    [
        ("57P01", True),  # shut down by its administrator
        ("57P03", True),  # starting up
        ("53300", True),  # too many connections
        ("40P01", True),  # a deadlock
        ("25P03", True),  # idle in a transaction for too long
        ("42P07", True),  # another made the table at the same moment
        (None, True),  # nobody there
        ("42P01", False),  # no such table
        ("22001", False),  # a value too long
        ("28P01", False),  # a wrong password
    ],
)
def test_the_databases_own_codes_decide(sqlstate: str | None, passing: bool) -> None:
    error = failed(sqlstate, sqlalchemy.exc.OperationalError)
    assert is_passing(error) == passing
    assert is_passing(error.__cause__) == passing
    assert patience_module.reason(error, "sqlite:///study.db") == "what counts"


def test_a_bug_is_never_waited_for() -> None:
    calls = []

    def broken() -> None:
        calls.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Patience("sqlite:///x")(broken)
    with pytest.raises(
        StorageLost, match="storage sqlite:///x failed, workers are stopped: what counts; the"
    ):
        Patience("sqlite:///x")(lambda: raises(failed("42P01", sqlalchemy.exc.ProgrammingError)))
    assert calls == [1]


def raises(error: Exception) -> None:
    raise error


def test_who_waits_says_so_once_and_can_be_called_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "FIRST_PAUSE", 0.01)
    said: list[str] = []
    turns: list[int] = []

    def meanwhile() -> None:
        turns.append(1)
        if len(turns) == 3:
            raise KeyboardInterrupt

    patient = Patience("sqlite:///x", say=said.append, meanwhile=meanwhile)
    with pytest.raises(KeyboardInterrupt):
        patient(lambda: raises(failed("57P03", sqlalchemy.exc.OperationalError)))
    assert said == ["storage sqlite:///x is away (what counts); waiting for it, 300 s at most"]
    assert not patient.just_returned


def test_a_file_that_another_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.05)
    url = storage_url(None, tmp_path)
    said: list[str] = []
    study = open_and_reconcile(url, "s", {"a": "run a"}, Patience(url, say=said.append))
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db", check_same_thread=False)) as holder:
        holder.isolation_level = None
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, lambda: holder.execute("ROLLBACK")).start()
        taken = study.claim({"a"})
    assert taken is not None
    assert len(said) == 1
    assert "database is locked" in said[0]


def test_an_end_that_the_storage_had_heard_is_not_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line breaks just after: another may have taken what was released by the time it is back."""
    monkeypatch.setattr(patience_module, "FIRST_PAUSE", 0.0)
    url = storage_url(None, tmp_path)
    study = open_and_reconcile(url, "s", {"a": "run a", "b": "run b"}, Patience(url, say=lambda _: None))
    first, second = study.claim({"a"}), study.claim({"b"})
    assert first is not None
    assert second is not None
    heard = study._storage.set_trial_state_values

    def broken_after(trial: int, *rest: object) -> bool:
        monkeypatch.setattr(study._storage, "set_trial_state_values", heard)
        heard(trial, *rest)
        if trial == first.trial:
            assert Study(url, "s").claim({"a"}) is not None
        raise failed(None, sqlalchemy.exc.OperationalError)

    monkeypatch.setattr(study._storage, "set_trial_state_values", broken_after)
    study.release(first.trial)
    assert study.standing({"a"})["a"].state == "running", "it is another's by now"
    monkeypatch.setattr(study._storage, "set_trial_state_values", broken_after)
    study.complete(second.trial, {"valid_ppl": 1.0})
    assert study.standing({"b"})["b"].row == {"valid_ppl": 1.0}


def test_of_several_trials_of_a_run_the_oldest_that_has_not_failed_is_taken(tmp_path: Path) -> None:
    url = storage_url(None, tmp_path)
    study = open_and_reconcile(url, "s", {"a": "run a"})
    study.enqueue("a", "run a", attempt=0)
    older, younger = study.entries()
    assert takeable([older, younger]) == [older]
    taken = study.claim({"a"})
    assert taken == older
    assert study.claim({"a"}) is None
    forge_worker(url, older.trial, dead_process())
    study.bury()
    assert takeable(study.entries()) == [younger]


def test_seconds_that_make_no_sense_are_one_line() -> None:
    assert load_run(["heartbeat.every=1", "heartbeat.grace=5"])[1].heartbeat == Heartbeat(every=1, grace=5)
    with pytest.raises(SpecError, match=r"heartbeat.grace=3 would bury the living; .*every=2: 4 or more"):
        load_run(["heartbeat.grace=3"])
