"""Searches of toys: what is refused, known, paused, promoted, killed, told from elsewhere."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path

import pytest

from retsweep.search import driver as driving
from retsweep.spec import SpecError
from retsweep.sweep.plan import plan
from retsweep.sweep.study import Study
from retsweep.sweep.variants import wanted
from retsweep.sweep.worker import work
from tests.search.searches import (
    TOY,
    asked,
    begun,
    driver,
    entries,
    here,
    killed,
    other,
    pattern,
    proposals,
    reconciled,
    searched,
    trained,
)

__all__ = ["here"]

#: No halving, so that a proposal is a run.
WHOLE = "search.halving.rungs=[]"
#: The four networks of one letter a pair of layers.
PAIRS = ("search.space.period=2", WHOLE)


def test_what_is_above_a_budget_is_refused_by_the_census_and_costs_nothing(here: Path) -> None:
    limit = 2 * 10**5
    job = searched(*PAIRS, "search.trials=9", f"budget.macs_decode_2048={limit}")
    found = {pattern(one): one for one in proposals(job)}
    assert found["AA"].costs["macs_decode_2048"] > limit > found["RR"].costs["macs_decode_2048"]
    assert {key for key, one in found.items() if one.infeasible} == {"AA", "AR", "RA"}
    assert set(entries(job)) == {"RR"}
    assert set(trained(here)) == {found["RR"].hash}
    assert found["AA"].infeasible == f"macs_decode_2048 {found['AA'].costs['macs_decode_2048']} above 200000"
    storage = Study(job.url, job.study).storage
    above = storage.get_trial(found["AA"].trial).constraints["macs_decode_2048"]
    assert above == pytest.approx(found["AA"].costs["macs_decode_2048"] / limit - 1)


def test_the_same_architecture_is_trained_once_and_told_twice(here: Path) -> None:
    job = searched(*PAIRS, "search.trials=9")
    told = proposals(job)
    assert set(trained(here).values()) == {9}
    assert set(entries(job)) == {"AA", "AR", "RA", "RR"}
    assert len(told) > 4, "nothing was proposed twice"
    values = {(pattern(one), one.values) for one in told}
    assert len(values) == 4
    assert all(one.state == "told" for one in told)
    assert sum(one.known for one in told) == len(told) - 4


def test_rows_of_the_same_study_answer_proposals(here: Path) -> None:
    grid = ["layout=pattern", "layout.pattern=AA"]
    (key,) = plan(wanted([*TOY, *grid]))
    job = begun(*PAIRS, "search.trials=9")
    study = Study(job.url, job.study)
    study.enqueue(key, "AA", 0)
    taken = study.claim({key})
    assert taken is not None
    study.complete(taken.trial, {"valid_ppl": 12.5, "status": "ok"})
    work(other(job), threading.Event())
    assert key not in trained(here)
    # A pattern that is repeated is the same run, however it was written.
    assert {one.values[0] for one in proposals(job) if one.values and pattern(one) == "AA"} == {12.5}


def test_halving_trains_a_third_on_and_the_rest_stays_paused(here: Path) -> None:
    job = searched("search.trials=9")
    standing = entries(job)
    assert driver(job).plan.rungs == (1, 3)
    assert len(standing) == 9
    until = {key: entry.until for key, entry in standing.items()}
    assert sorted(until.values(), key=str) == [1] * 6 + [3] * 2 + [None]
    whole = next(key for key, steps in until.items() if steps is None)
    assert standing[whole].state == "complete"
    assert standing[whole].rungs.keys() == {1, 3}
    steps = trained(here)
    assert sorted(steps.values()) == [1] * 6 + [3] * 2 + [9], "nothing is trained twice"
    assert sum(steps.values()) == driver(job).trained(standing)
    best = min(standing.values(), key=lambda entry: entry.rungs[1])
    assert best.until != 1, "the best of the first rung went on"
    dropped = {pattern(one) for one in proposals(job) if one.state == "dropped"}
    assert dropped == {key for key, entry in standing.items() if entry.state == "paused"}


def test_a_longer_search_goes_on_with_what_is_paused(here: Path) -> None:
    searched("search.trials=4")
    before = trained(here)
    job = searched("search.trials=12")
    assert len(entries(job)) == 12
    assert all(trained(here)[key] >= steps for key, steps in before.items())
    assert max(trained(here).values()) == 9, "what was trained is not trained again"
    done = {entry.hash for entry in entries(job).values() if entry.state == "complete"}
    assert done <= {one.hash for one in proposals(job) if one.state == "told"}


def test_a_search_ends_by_the_steps_that_it_may_train(here: Path) -> None:
    job = searched("search.trials=null", "search.steps=30")
    assert sum(trained(here).values()) in range(22, 31)
    assert any(entry.state == "complete" for entry in entries(job).values())


def test_what_diverges_is_dropped_and_never_promoted(here: Path) -> None:
    job = searched(*PAIRS, "search.trials=4", "+task.diverges=AAAA")
    (diverged,) = {one.state for one in proposals(job) if pattern(one) == "AA"}
    assert diverged == "dropped"
    assert {one.state for one in proposals(job) if pattern(one) != "AA"} == {"told"}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_one_worker_with_one_seed_does_the_same_again_even_if_it_is_killed(here: Path, sampler: str) -> None:
    overrides = ("search.trials=10", "search.startup=3", "search.population=3", f"search.sampler={sampler}")
    job = searched(*overrides)
    unbroken = [(pattern(one), one.values, one.state) for one in proposals(job)]
    assert len({one for one, *_ in unbroken}) == 10
    rows = {key: entry.row and entry.row["valid_ppl"] for key, entry in entries(job).items()}
    for left in (*here.iterdir(),):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    job = begun(*overrides, "+task.dies_after=15")
    reconciled(job)
    assert killed(job) == signal.SIGKILL
    job = begun(*overrides, "+task.dies_after=15")
    reconciled(job)
    work(other(job), threading.Event())
    assert [(pattern(one), one.values, one.state) for one in proposals(job)] == unbroken
    assert {key: entry.row and entry.row["valid_ppl"] for key, entry in entries(job).items()} == rows


@pytest.mark.parametrize("at", ["asked", "noted", "enqueued"])
def test_what_a_killed_process_left_of_a_proposal_is_finished_by_the_next(
    here: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    job = begun(*PAIRS, "search.trials=3")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        if at == "asked":
            patched.setattr(driving.Driver, "_settle", kill)
        elif at == "noted":
            patched.setattr(Study, "enqueue", kill)
        else:
            patched.setattr(Study, "claim", kill)
        work(other(job), threading.Event())
    work(other(begun(*PAIRS, "search.trials=3")), threading.Event())
    assert len(entries(job)) == 3
    assert all(one.state == "told" for one in proposals(job))
    assert set(trained(here).values()) == {9}


def test_two_workers_share_a_search(here: Path) -> None:
    job = begun("search.trials=12")
    workers = [threading.Thread(target=work, args=(other(job), threading.Event())) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(entries(job)) == 12
    assert {entry.state for entry in entries(job).values()} == {"complete", "paused"}
    assert sum(trained(here).values()) == driver(job).trained(entries(job)), "nothing is trained twice"


def test_any_worker_builds_a_run_from_the_ledger_alone(here: Path) -> None:
    job = begun("search.trials=1", "search.space.decay=[retnet,log_spaced]", "search.space.letters=[R]")
    driver(job).refill(job, Study(job.url, job.study), 1)
    (entry,) = entries(job).values()
    stranger = other(job)
    planned = stranger.planned(entry)
    assert planned.spec == driver(job).joined(job, Study(job.url, job.study))[entry.hash].spec
    changed = [*entry.overrides, "scale.ffn=33"]
    with pytest.raises(SpecError, match=f"is run [0-9a-f]+ here, not {entry.hash}"):
        stranger.feed.build(stranger, type(entry)(**{**vars(entry), "overrides": tuple(changed)}))  # type: ignore[union-attr]


def test_a_study_is_one_search(here: Path) -> None:
    searched(*PAIRS, "search.trials=1")
    for changed in ("search.space.letters=[A,R,N]", "budget.params=1000000", "scale.ffn=48"):
        with pytest.raises(SpecError, match="is a search with another"):
            begun(*PAIRS, "search.trials=1", changed)
    with pytest.raises(SpecError, match="other objectives"):
        begun(*PAIRS, "search.trials=1", "search.objectives=[valid_ppl,params,state_bytes_128]")


def test_earlier_studies_warm_a_search(here: Path) -> None:
    grid = [*TOY, "study=grid", "layout=type_b"]
    rows = {}
    for key, one in plan(wanted([*grid, "seeds=2", "layout.attention=2"])).items():
        rows[key] = one
    elsewhere = plan(wanted([*grid, "layout.attention=2", "scale.ffn=20"]))
    url = asked(WHOLE).wanted.settings.runs
    assert url == "runs"
    from retsweep.sweep.rows import describe
    from retsweep.sweep.storage import storage_url

    folder = Path("runs/grid")
    folder.mkdir(parents=True)
    study = Study(storage_url(None, folder), "grid", create=True)
    for at, (key, one) in enumerate({**rows, **elsewhere}.items()):
        study.enqueue(key, one.run.label, 0)
        taken = study.claim({key})
        assert taken is not None
        row = {**describe(one.spec, one.data_hash, "cpu"), "valid_ppl": 10.0 + at, "status": "ok"}
        study.complete(taken.trial, row)
    warm = ("search.trials=2", WHOLE, "search.warm_start=[grid]", "search.space.ffn=[1.0,2.0]")
    job = begun(*warm)
    (told,) = proposals(job)
    assert (pattern(told), told.params["ffn"], told.source) == ("RRAA", 32, "grid")
    assert told.values is not None
    assert told.values[0] == 10.5, "the mean over its seeds"
    assert not told.counts
    assert len(proposals(begun(*warm))) == 1, "it is told once"
    with pytest.raises(SpecError, match="no study 'nothing' in runs"):
        begun(*warm[:-2], "search.warm_start=[nothing]")
