"""The chaos command's own judgement: what it would miss, nobody would see."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.chaos.faults import KINDS, OF_THE_SERVER, plan
from benchmarks.chaos.verdict import Verdict, judge, judge_proposals
from benchmarks.chaos.watch import Watch, quantile
from retsweep.search.proposals import Proposal
from retsweep.sweep.study import Entry
from retsweep.train import checkpoint

ROW = {"seed": 0, "valid_ppl": 21.3, "seconds": 1.0, "preflight_seconds": 1.0}
RUNNING = Entry(1, "a", "running", 0, (5, 10), {"where": "m0", "pid": 7, "born": "1"}, None, None)
DONE = dataclasses.replace(RUNNING, state="complete", row={**ROW, "seconds": 2.0, "preflight_seconds": 3.0})


def test_a_plan_comes_of_its_seed_and_has_every_kind_equally_often() -> None:
    faults = plan(200, KINDS, seed=3, pace=4.0, grace=4.0)
    assert faults == plan(200, KINDS, seed=3, pace=4.0, grace=4.0) != plan(200, KINDS, 4, 4.0, 4.0)
    assert set(Counter(fault.kind for fault in faults).values()) == {20}
    assert all(fault.seconds > 4.0 for fault in faults if fault.kind.startswith("stop"))
    away = [fault.seconds for fault in faults if fault.kind in OF_THE_SERVER]
    assert min(away) < 4.0 < max(away)
    assert len(plan(7, KINDS[:2], 0, 1.0, 1.0)) == 7


def trial(folder: Path, value: float = 1.0, status: str = "ok") -> Path:
    folder.mkdir(parents=True)
    (folder / "row.json").write_text(json.dumps(ROW if folder.parent.name == "unbroken" else DONE.row))
    content = {"weights": {"w": torch.tensor([value])}, "step": 3, "state": {"status": status}}
    checkpoint.save(folder / "last.pt", content)
    return folder


def truncate(machine: Path) -> None:
    file = machine / "trials" / "a" / "last.pt"
    (machine / "trials" / "a" / "best.pt").write_bytes(file.read_bytes()[:-20])


def other_weights(machine: Path) -> None:
    file = machine / "trials" / "a" / "last.pt"
    content = checkpoint.load(file)
    content["weights"]["w"] += torch.finfo(torch.float32).eps
    checkpoint.save(file, {key: value for key, value in content.items() if key != "format"})


def no_row(machine: Path) -> None:
    (machine / "trials" / "a" / "row.json").unlink()


def nothing(machine: Path) -> None:
    pass


def with_row(**columns: object) -> Entry:
    return dataclasses.replace(DONE, row={**(DONE.row or {}), **columns})


@pytest.mark.parametrize(
    ("entries", "damage", "found"),
    [
        ([DONE], nothing, {}),
        ([RUNNING], nothing, {"lost": 1, "open": 1, "missing": 1}),
        ([DONE, dataclasses.replace(DONE, trial=2)], nothing, {"doubled": 1}),
        ([DONE, dataclasses.replace(DONE, trial=2, hash="b")], nothing, {"doubled": 1}),
        ([DONE, dataclasses.replace(DONE, trial=2, state="waiting")], nothing, {"open": 1}),
        ([with_row(valid_ppl=21.300000000000004)], nothing, {"differing": 1, "missing": 1}),
        ([with_row(seed=None)], nothing, {"differing": 1, "missing": 1}),
        ([DONE], other_weights, {"differing": 1}),
        ([DONE], truncate, {"broken": 1}),
        ([DONE], no_row, {"missing": 1}),
    ],
)
def test_the_verdict(
    tmp_path: Path, entries: list[Entry], damage: Callable[[Path], None], found: dict[str, int]
) -> None:
    unbroken = {"a": trial(tmp_path / "unbroken" / "a")}
    machine = tmp_path / "m0"
    trial(machine / "trials" / "a")
    trial(tmp_path / "m1" / "trials" / "a", value=3.0, status="running")  # it was taken away from there
    damage(machine)
    verdict = judge(entries, unbroken, machine, [machine, tmp_path / "m1"])
    assert dataclasses.replace(verdict, said=()) == Verdict(rows=1, weights=1, **found)
    assert verdict.good == (not found)


def test_a_run_may_end_paused_in_a_search_alone(tmp_path: Path) -> None:
    unbroken = {"a": trial(tmp_path / "unbroken" / "a")}
    paused = [dataclasses.replace(RUNNING, state="paused")]
    assert judge(paused, unbroken, tmp_path, []).lost == 1
    assert judge(paused, unbroken, tmp_path, [], paused=True) == Verdict()


PROPOSAL = Proposal(1, 0, {}, "told", (21.3, 5.0), "a", {}, 0, None, None, known=False)


@pytest.mark.parametrize(
    ("proposals", "found"),
    [
        ([PROPOSAL], {}),
        ([PROPOSAL, dataclasses.replace(PROPOSAL, trial=2, known=True)], {}),
        ([PROPOSAL, dataclasses.replace(PROPOSAL, trial=2)], {"doubled": 1}),
        ([dataclasses.replace(PROPOSAL, state="open")], {"open": 1, "lost": 1}),
        ([dataclasses.replace(PROPOSAL, state="dropped", values=None)], {"lost": 1}),
    ],
)
def test_the_verdict_on_proposals(proposals: list[Proposal], found: dict[str, int]) -> None:
    assert dataclasses.replace(judge_proposals(proposals, [DONE]), said=()) == Verdict(**found)


def test_recovery_counts_until_the_run_goes_on_elsewhere() -> None:
    watch = Watch()
    watch.see({"a": RUNNING}, 0.0)
    watch.hit("kill-worker", 1.0, ["a"])
    watch.hit("cut-sessions", 1.0, ["a"])
    watch.hit("stop-parent", 1.0, [])
    watch.see({"a": RUNNING}, 1.5)
    watch.see({"a": dataclasses.replace(RUNNING, steps=(6, 10))}, 2.0)
    assert (watch.seconds("cut-sessions"), watch.seconds("kill-worker")) == ([1.0], [])
    assert watch.open
    watch.see({"a": dataclasses.replace(RUNNING, trial=2, state="waiting", worker=None)}, 3.0)
    assert watch.open
    watch.see(
        {"a": dataclasses.replace(RUNNING, trial=2, worker={"where": "m1", "pid": 8, "born": "2"})}, 5.0
    )
    assert not watch.open
    assert watch.seconds() == [1.0, 4.0], "one that hit nothing is not among them"
    assert (quantile([1.0, 2.0, 3.0], 0.95), quantile([1.0, 2.0], 0.5)) == (3.0, 1.0)
