"""A search that two worker processes share on PostgreSQL, where it is installed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos.server import NoServer, server
from retsweep.sweep.study import Study
from tests.search.searches import begun, entries, here, pattern, proposals, reconciled, trained, working

__all__ = ["here"]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Studies are kept in a server which nobody else uses; with CI set its absence is an error."""
    try:
        with server() as found:
            monkeypatch.setenv("RETSWEEP_STORAGE", found.url)
            yield
    except NoServer as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def test_two_workers_tell_every_proposal_once(here: Path, shared: None) -> None:
    """Four networks in all, halved: they stop at steps that the other worker may go on from."""
    job = begun("search.space.period=2", "search.halving.rungs=[3]", "search.trials=4")
    assert job.url.startswith("postgresql+psycopg://")
    reconciled(job)
    workers = [working(job) for _ in range(2)]
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
    found = proposals(job)
    told = Counter(pattern(one) for one in found if one.state == "told" and not one.known)
    standing = entries(job)
    rows = {name: entry.row for name, entry in standing.items() if entry.row}
    assert told == Counter(dict.fromkeys(rows, 1))
    assert not [one for one in found if one.state == "open"]
    states = Counter(entry.state for entry in standing.values())
    assert len(standing) == 4
    assert states.keys() <= {"complete", "paused"}
    assert states["complete"] == len(rows) >= 2
    for one in found:
        row = rows.get(pattern(one))
        assert one.values == ((row["valid_ppl"], one.costs["macs_decode_2048"]) if row else None)
    ledger = Study(job.url, job.study).entries()
    assert len({entry.hash for entry in ledger}) == len(ledger) == 4
    steps = {entry.hash: 9 if entry.state == "complete" else 3 for entry in standing.values()}
    assert trained(here) == Counter(steps), "no step was taken twice, by whichever worker"
