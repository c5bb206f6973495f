"""Searches of toys: what is refused, known, paused, promoted, killed, told from elsewhere."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import signal
import threading
from pathlib import Path

import pytest

from retsweep.search import driver as driving
from retsweep.search.warm import rows_of
from retsweep.spec import SpecError
from retsweep.sweep.plan import plan
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.rows import describe
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Study
from retsweep.sweep.variants import wanted
from retsweep.sweep.worker import work
from retsweep.tasks.base import Workspace
from tests.search.searches import (
    TOY,
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
from tests.search.toy import LOG

__all__ = ["here"]

#: No halving, so that a proposal is a run.
WHOLE = "search.halving.rungs=[]"
#: Two networks, or four: of one letter, or a pair of letters.
TWO = ("search.space.period=1", WHOLE)
FOUR = ("search.space.period=2", WHOLE)
#: Six of 81 networks, halved.
SIX = (
    *("search.space.letters=[A,R,N]", "search.trials=6", "search.halving.rungs=[1,3]"),
    *("search.halving.eta=3", "search.ends=false"),
)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of SIX that has ended: to be copied, not touched."""
    folder = tmp_path_factory.mktemp("halved")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv(LOG, str(folder / "log"))
        searched(*SIX)
    return folder


@pytest.fixture
def six(here: Path, halved: Path) -> Path:
    """The same in a copy, which is the working directory."""
    shutil.copytree(halved, here, dirs_exist_ok=True)
    return here


def test_what_is_above_a_budget_is_refused_by_the_census_and_costs_nothing(here: Path) -> None:
    limit = 2 * 10**5
    job = searched(*TWO, "search.trials=9", f"budget.macs_decode_2048={limit}")
    found = {pattern(one): one for one in proposals(job)}
    cost = found["A"].costs["macs_decode_2048"]
    assert cost > limit > found["R"].costs["macs_decode_2048"]
    assert found["A"].infeasible == f"macs_decode_2048 {cost} above 200000"
    assert found["R"].infeasible is None
    assert set(entries(job)) == {"R"}
    assert set(trained(here)) == {found["R"].hash}
    kept = Study(job.url, job.study).storage.get_trial(found["A"].trial)
    assert kept.constraints == {"macs_decode_2048": pytest.approx(cost / limit - 1)}


def test_it_begins_with_the_ends_of_the_front(here: Path) -> None:
    decays = "search.space.decay=[log_spaced,retnet]"
    job = searched("search.space.letters=[A,R,N]", WHOLE, "search.trials=4", decays)
    assert [one.params["decay"] for one in proposals(job)[:3]] == ["retnet"] * 3, "as configured"
    found = [pattern(one) for one in proposals(job)]
    assert [set(letters) for letters in found[:3]] == [{"A"}, {"R"}, {"N"}]
    assert len(set(found)) == 4


def test_the_ends_are_trained_whole_and_what_follows_is_spread_over_the_costs(here: Path) -> None:
    job = searched("search.trials=5", "search.startup=5", "search.halving.rungs=[3]")
    shares = [pattern(one).count("A") for one in proposals(job)]
    assert shares[:2] == [4, 0]
    assert sorted(shares) == [0, 1, 2, 3, 4], "every cost that there is, once"
    ends = [entry for key, entry in entries(job).items() if len(set(key)) == 1]
    assert [(entry.state, entry.until, dict(entry.rungs)) for entry in ends] == [("complete", None, {})] * 2
    assert all(3 in entry.rungs for key, entry in entries(job).items() if len(set(key)) == 2)
    by_chance = searched("search.trials=5", "search.spread=false", "study=chance")
    assert len({pattern(one).count("A") for one in proposals(by_chance)}) < 5


def test_where_every_network_has_one_letter_there_is_halving_too(here: Path) -> None:
    widths = ("search.space.ffn=[0.5,1.0,2.0]", "search.space.letters=[R]")
    job = searched("search.trials=3", "search.halving.rungs=[3]", *widths)
    assert all(3 in entry.rungs for entry in Study(job.url, job.study).entries() if entry.overrides)


def test_an_end_that_a_killed_process_was_asking_for_is_proposed_again(here: Path) -> None:
    job = begun("search.trials=3", WHOLE)
    driver(job).proposals(job, Study(job.url, job.study))._study.ask()  # killed before a parameter was chosen
    reconciled(job)
    work(other(job), threading.Event())
    assert {"AAAA", "RRRR"} <= {pattern(one) for one in proposals(job)}


def test_a_run_that_a_grid_has_enqueued_is_taken_and_told(here: Path) -> None:
    (key,) = plan(wanted([*TOY, "layout=pattern", "layout.pattern=RRRR"]))
    job = begun(*TWO, "search.trials=2")
    Study(job.url, job.study).enqueue(key, "RetNet", 0)
    work(other(job), threading.Event())
    assert trained(here)[key] == 9
    assert [one.state for one in proposals(job)] == ["told"] * len(proposals(job))
    assert {pattern(one) for one in proposals(job)} == {"A", "R"}


def test_a_latency_is_measured_when_a_run_is_trained(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "decode_latency_ms_40_b2"
    job = searched(*TWO, "search.trials=1", f"search.objectives=[valid_ppl,{name}]", "workers=1")
    (told, *_) = proposals(job)
    (entry,) = entries(job).values()
    assert entry.row is not None
    assert told.values == (entry.row["valid_ppl"], entry.row[name])
    assert 0 < entry.row[name] < 1000
    monkeypatch.setattr(driving, "device_name", lambda device: "another")
    with pytest.raises(SpecError, match=f"{name}: the search measures on .*, this is another"):
        driver(job).measure(driver(job).build(job, entry).spec, Workspace(here, "cpu", here))


def test_a_run_that_is_known_is_told_and_not_trained_and_what_diverged_is_dropped(here: Path) -> None:
    (key,) = plan(wanted([*TOY, "layout=pattern", "layout.pattern=AA", "+task.diverges=RARA"]))
    overrides = (*FOUR, "search.trials=9", "+task.diverges=RARA")
    job = begun(*overrides)
    study = Study(job.url, job.study)
    study.enqueue(key, "AA", 0)
    taken = study.claim({key})
    assert taken is not None
    study.complete(taken.trial, {"valid_ppl": 12.5, "status": "ok"})
    work(other(job), threading.Event())
    assert key not in trained(here)
    told = proposals(job)
    assert len(told) > 4, "nothing was proposed twice"
    values = {pattern(one): one.values and one.values[0] for one in told}
    # A pattern that is repeated is the same run, however it was written.
    assert values["AA"] == 12.5
    assert values["RA"] is None
    assert {one.state for one in told if pattern(one) == "RA"} == {"dropped"}
    assert {one.state for one in told if pattern(one) != "RA"} == {"told"}
    assert sorted(trained(here).values()) == [2, 9, 9]
    assert driver(job).trained(entries(job)) == 20, "of a row that was there nothing was trained"


def test_halving_trains_a_third_on_and_the_rest_stays_paused(six: Path) -> None:
    job = begun(*SIX)
    standing = entries(job)
    assert driver(job).plan.rungs == (1, 3)
    order = sorted(standing.values(), key=lambda entry: (entry.rungs[1], entry.hash))
    assert all(entry.until != 1 for entry in order[:2]), "the best third of the first rung went on"
    assert sum(entry.until == 1 for entry in order) >= 4, (
        "and of the others not many (it was early, and best)"
    )
    whole = [entry for entry in order if entry.until is None]
    assert whole
    assert all((entry.state, set(entry.rungs)) == ("complete", {1, 3}) for entry in whole)
    steps = trained(six)
    assert steps == {entry.hash: entry.until or 9 for entry in order}, "nothing is trained twice"
    assert sum(steps.values()) == driver(job).trained(standing)
    dropped = {pattern(one) for one in proposals(job) if one.state == "dropped"}
    assert dropped == {key for key, entry in standing.items() if entry.state == "paused"}


def test_a_longer_search_goes_on_with_what_is_paused(six: Path) -> None:
    before = trained(six)
    job = searched(*SIX, "search.trials=9")
    standing = entries(job)
    assert len(standing) == 9
    assert all(trained(six)[key] >= steps for key, steps in before.items())
    assert max(trained(six).values()) == 9, "what was trained is not trained again"
    done = {entry.hash for entry in standing.values() if entry.state == "complete"}
    assert done <= {one.hash for one in proposals(job) if one.state == "told"}


def test_a_search_ends_by_the_steps_that_it_may_train(here: Path) -> None:
    job = searched("search.trials=null", "search.steps=12", "search.space.letters=[A,R,N]")
    assert sum(trained(here).values()) in range(10, 13)
    assert driver(job).trained(entries(job)) == sum(trained(here).values())


@pytest.mark.slow
def test_one_worker_with_one_seed_does_the_same_again_even_if_it_is_killed(here: Path) -> None:
    overrides = (
        *("search.space.letters=[A,R,N]", "search.trials=4", "search.startup=1"),
        *("search.halving.rungs=[3]", "search.halving.eta=2", "search.ends=false"),
    )
    job = searched(*overrides)
    unbroken = [(one.params, one.values, one.state) for one in proposals(job)]
    rows = {key: entry.row and entry.row["valid_ppl"] for key, entry in entries(job).items()}
    assert sum(row is not None for row in rows.values()) >= 2, "the sampler had something to go by"
    for left in (*here.iterdir(),):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    job = begun(*overrides, "+task.dies_after=11")
    assert killed(job) == signal.SIGKILL
    job = begun(*overrides, "+task.dies_after=11")
    reconciled(job)
    work(other(job), threading.Event())
    assert [(one.params, one.values, one.state) for one in proposals(job)] == unbroken
    assert {key: entry.row and entry.row["valid_ppl"] for key, entry in entries(job).items()} == rows


def test_what_killed_processes_leave_of_proposals_is_finished_by_the_next(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    job = begun(*FOUR, "search.trials=3")
    for place, method in ((driving.Driver, "_settle"), (Study, "enqueue"), (Study, "claim")):
        with monkeypatch.context() as patched:
            patched.setattr(place, method, kill)
            with pytest.raises(Killed):
                work(other(job), threading.Event())
    assert len(proposals(job)) == 1
    work(other(job), threading.Event())
    assert len(entries(job)) == 3
    assert all(one.state == "told" for one in proposals(job))
    assert set(trained(here).values()) == {9}


def test_two_workers_share_a_search(here: Path) -> None:
    job = begun(*SIX, "search.sampler=nsga2", "search.population=2")
    workers = [threading.Thread(target=work, args=(other(job), threading.Event())) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(entries(job)) == 6
    assert {entry.state for entry in entries(job).values()} == {"complete", "paused"}
    assert sum(trained(here).values()) == driver(job).trained(entries(job)), "nothing is trained twice"


def test_any_worker_builds_a_run_from_the_ledger_alone(here: Path) -> None:
    job = begun("search.trials=1", "search.space.decay=[retnet,log_spaced]", "search.space.letters=[R]")
    driver(job).refill(job, Study(job.url, job.study), 1)
    (entry,) = entries(job).values()
    stranger = other(job)
    planned = stranger.planned(entry)
    assert planned.spec == driver(job).joined(job, Study(job.url, job.study))[entry.hash].spec
    changed = dataclasses.replace(entry, overrides=(*entry.overrides, "scale.ffn=33"))
    with pytest.raises(SpecError, match=f"is run [0-9a-f]+ here, not {entry.hash}"):
        driver(stranger).build(stranger, changed)


def test_a_study_is_one_search(six: Path) -> None:
    with pytest.raises(SpecError, match="is a search with another base"):
        begun(*SIX, "scale.ffn=48")
    with pytest.raises(SpecError, match="other objectives"):
        begun(*SIX, "search.objectives=[valid_ppl,params,state_bytes_128]")
    with pytest.raises(SpecError, match="other objectives"):
        begun(*SIX, "search.objectives=[valid_ppl,params]")
    begun(*SIX), "and a refusal has changed nothing"


def test_earlier_studies_warm_a_search(here: Path) -> None:
    grid = [*TOY, "study=grid", "layout=type_b", "layout.attention=2"]
    runs = {**plan(wanted([*grid, "seeds=2"])), **plan(wanted([*grid, "scale.ffn=20"]))}
    folder = Path("runs/grid")
    folder.mkdir(parents=True)
    study = Study(storage_url(None, folder), "grid", create=True)
    for at, (key, one) in enumerate(runs.items()):
        study.enqueue(key, one.run.label, 0)
        taken = study.claim({key})
        assert taken is not None
        row = {**describe(one.spec, one.data_hash, "cpu"), "valid_ppl": 10.0 + at, "status": "ok"}
        study.complete(taken.trial, row)
    warm = ("search.trials=2", "search.warm_start=[grid]", "search.space.ffn=[1.0,2.0]")
    job = begun(*warm)
    (told,) = proposals(job)
    assert (pattern(told), told.params["ffn"], told.source) == ("RRAA", 32, "grid")
    assert told.values is not None
    assert told.values[0] == 10.5, "the mean over its seeds"
    assert not told.counts
    assert len(proposals(begun(*warm))) == 1, "it is told once"
    with pytest.raises(SpecError, match="no study 'nothing' in runs"):
        rows_of("nothing", None, "runs")


def test_a_plain_command_takes_what_a_search_has_paused_to_its_end(six: Path) -> None:
    job = begun(*SIX)
    paused = {entry.hash: "x" for entry in entries(job).values() if entry.state == "paused"}
    assert paused
    study = open_and_reconcile(job.url, job.study, paused, whole=True)
    assert {(one.state, one.until) for one in study.standing(paused).values()} == {("waiting", None)}


def test_of_a_run_that_was_enqueued_twice_the_older_trial_counts(here: Path) -> None:
    job = begun(*FOUR, "search.trials=1")
    study = Study(job.url, job.study)
    for _ in range(2):
        study.enqueue("hash", "x", 0, ["overrides"], until=3)
    older = study.claim({"hash"})
    assert older is not None
    study.pause(older, 12.0)
    assert study.standing({"hash"})["hash"].trial == older.trial
    assert study.claim({"hash"}) is None, "the spare of a paused run is not taken"
    study.bury()
    assert [one.state for one in study.entries() if one.hash == "hash"] == ["paused", "lost"]
    study.promote(older.trial, None)
    taken = study.claim({"hash"})
    assert taken is not None
    assert taken.trial == older.trial
    study.fail(taken.trial, {"status": "failed"}, "ValueError: no")
    assert study.standing({"hash"})["hash"].state == "failed", "what the spare was says nothing"


def test_what_workers_get_of_a_search_has_no_settings_in_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETSWEEP_STORAGE", f"sqlite:///{here}/a-canary.db")
    job = begun(*FOUR, "search.trials=1")
    assert job.feed is not None
    job.feed.take(job, Study(job.url, job.study))
    assert b"a-canary" not in pickle.dumps(job.feed)
