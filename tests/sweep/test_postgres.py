"""The same ledger in PostgreSQL, in a server of the test's own where PostgreSQL is installed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import sqlalchemy

from benchmarks.chaos.server import NoServer, Server, server
from retsweep.spec.settings import Heartbeat
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.reconcile import open_and_reconcile, reconcile
from retsweep.sweep.storage import check_reachable, exclusive, storage_url
from retsweep.sweep.study import ClaimLost, Study
from tests.sweep.test_study import dead_process, released_at_once

WANTED = {"a": "run a", "b": "run b"}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server that nobody else uses; with CI set (``.ci/run`` installs one) its absence is an error."""
    try:
        with server() as found:
            yield found
    except NoServer as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def url(running: Server, tmp_path: Path) -> str:
    return storage_url(running.url, tmp_path)


def test_parents_and_workers_share_a_server(url: str, tmp_path: Path) -> None:
    assert url.startswith("postgresql+psycopg://"), "the driver that the extra installs"
    check_reachable(url)
    ran = released_at_once(url, tmp_path, 4, 16, "fresh")
    assert sorted(chain(*ran)) == sorted(f"hash{number}" for number in range(16))
    assert len(Study(url, "s").entries()) == 16
    assert list(open_and_reconcile(url, "other", {"a": "run a"}).standing({"a"})) == ["a"]


def test_a_server_that_goes_away_is_waited_for_by_all_calls(running: Server, url: str) -> None:
    said: list[str] = []
    study = open_and_reconcile(url, "away", WANTED, Patience(url, Heartbeat(patience=60), said.append))
    taken = study.claim(WANTED)
    assert taken is not None
    running.stop("immediate")
    back = threading.Timer(0.5, running.start)
    back.start()
    study.complete(taken.trial, {"valid_ppl": 2.0})
    back.join()
    running.cut()
    reconcile(study, url, "away", WANTED, retries=1)
    assert {key: entry.state for key, entry in study.standing(WANTED).items()} == {
        "a": "complete",
        "b": "waiting",
    }
    assert len(said) == 1, said
    assert "is away" in said[0]
    assert "waiting for it, 60 s at most" in said[0]


def test_patience_ends_in_one_line_and_without_the_password(running: Server, tmp_path: Path) -> None:
    secret = storage_url(running.url.replace("retsweep@", "retsweep:secret@"), tmp_path)
    study = open_and_reconcile(
        secret, "lost", WANTED, Patience(secret, Heartbeat(patience=1), lambda _: None)
    )
    running.stop("fast")
    try:
        began = time.monotonic()
        with pytest.raises(
            StorageLost, match=r"failed, workers are stopped: .*; the same command goes on"
        ) as e:
            study.entries()
        assert time.monotonic() - began >= 1
        assert "\n" not in str(e.value)
        assert "secret" not in str(e.value)
    finally:
        running.start()


def test_silence_while_the_server_was_away_is_nobodys_death(running: Server, url: str) -> None:
    """A server that comes back after longer than the grace finds every worker silent, and all alive."""
    study = open_and_reconcile(url, "silence", WANTED)
    taken = study.claim(WANTED)
    assert taken is not None
    study._note(taken.trial, "worker", {"where": "another machine", "pid": 1, "born": ""})
    aged = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 day'"
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text(aged))
    running.stop("fast")
    running.start()
    reconcile(Study(url, "silence"), url, "silence", WANTED, retries=1)
    assert study.standing(WANTED)["a"].state == "running"
    brief = Study(url, "silence", patience=Patience(url, Heartbeat(every=1, grace=2)))
    time.sleep(2.5)
    reconcile(brief, url, "silence", WANTED, retries=1)
    assert [(entry.state, entry.attempt) for entry in study.entries() if entry.hash == "a"] == [
        ("lost", 0),
        ("waiting", 1),
    ]


def test_whoever_sleeps_inside_the_lock_lets_the_next_one_in(url: str) -> None:
    impatient = Patience(url, Heartbeat(every=1, grace=2))
    began = time.monotonic()
    with exclusive(url, "s", impatient), exclusive(url, "s", impatient):
        assert time.monotonic() - began < 30


def test_a_run_that_was_enqueued_twice_is_carried_out_once(url: str) -> None:
    """As when the server goes away and nobody knows whether it had heard."""
    study = open_and_reconcile(url, "twice", {"a": "run a"})
    study.enqueue("a", "run a", attempt=0)
    first, second = study.claim(WANTED), Study(url, "twice").claim(WANTED)
    assert first is not None
    assert second is None
    forge_worker_of(study, first.trial)
    reconcile(study, url, "twice", {"a": "run a"}, retries=5)
    spare = study.claim(WANTED)
    assert spare is not None
    with pytest.raises(ClaimLost):
        study.complete(first.trial, {"valid_ppl": 1.0})
    study.enqueue("a", "run a", attempt=0)
    study.complete(spare.trial, {"valid_ppl": 1.0})
    assert study.claim(WANTED) is None
    reconcile(study, url, "twice", {"a": "run a"}, retries=5)
    assert [entry.state for entry in study.entries()] == ["lost", "complete", "lost"]


def forge_worker_of(study: Study, trial: int) -> None:
    study._note(trial, "worker", dead_process())
