"""keep: what stays on disk of a run that has its row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from retsweep.spec.base import spec
from retsweep.sweep import command, trial
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.trial import SPARES
from retsweep.sweep.variants import wanted
from retsweep.tasks.base import InterruptedRun, Workspace

WEIGHTS = ["best.pt", "last.pt"]
STAYS = ["config.yaml", "metrics.jsonl", "row.json"]


@spec
class Saves:
    """It leaves what training leaves, then ends as ``ends`` says."""

    name: ClassVar[str] = "saves"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    ends: str = "ok"

    def __call__(self, run: Any, workspace: Workspace) -> dict[str, Any]:
        for name in (*WEIGHTS, "metrics.jsonl"):
            (workspace.folder / name).write_text("weights")
        if self.ends == "paused":
            for name in SPARES:
                (workspace.folder / name).write_text("weights")
            workspace.metrics({"step": 3, "valid_loss": 2.0})
            workspace.progress(3, 9)
            raise InterruptedRun("paused")
        if self.ends == "stopped":
            raise InterruptedRun("stopped")
        if self.ends == "raises":
            raise ValueError("broken")
        return {"status": self.ends, "valid_ppl": 12.0}


@dataclass(frozen=True)
class Done:
    job: Job
    study: Study
    taken: Entry

    @property
    def folder(self) -> Path:
        return self.job.trial_folder(self.taken.hash)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def carry_out(tmp_path: Path) -> Callable[..., Done]:
    def carry_out(*overrides: str, until: int | None = None) -> Done:
        asked = wanted(
            [
                *("scale=tiny", "tracker=none", "device=cpu", "study=s", f"runs={tmp_path}", "~task"),
                *("+task._target_=tests.sweep.test_keep.Saves", *overrides),
            ]
        )
        job = command._job(asked, plan(asked))
        study = open_and_reconcile(job.url, job.study, job.labels)
        taken = study.claim(job.runs)
        assert taken is not None
        trial.run_trial(job, study, dataclasses.replace(taken, until=until), lambda: False)
        return Done(job, study, taken)

    return carry_out


def test_checkpoints_stay_if_nobody_says_otherwise(carry_out: Callable[..., Done]) -> None:
    assert carry_out().files == sorted([*WEIGHTS, *STAYS])


@pytest.mark.parametrize("ends", ["ok", "diverged@3"])
def test_of_a_run_that_has_its_row_the_row_stays(carry_out: Callable[..., Done], ends: str) -> None:
    done = carry_out("keep=rows", f"+task.ends={ends}")
    assert done.files == STAYS
    assert json.loads((done.folder / "row.json").read_text())["status"] == ends
    standing = done.study.standing(done.job.runs)[done.taken.hash]
    assert standing.state == "complete"
    assert standing.row is not None


@pytest.mark.parametrize(("ends", "state"), [("stopped", "waiting"), ("raises", "failed")])
def test_a_run_that_may_go_on_keeps_its_weights(
    carry_out: Callable[..., Done], ends: str, state: str
) -> None:
    done = carry_out("keep=rows", f"+task.ends={ends}")
    assert done.study.standing(done.job.runs)[done.taken.hash].state == state
    assert set(WEIGHTS) < set(done.files)


def test_a_paused_run_keeps_one_pair(carry_out: Callable[..., Done]) -> None:
    paused = carry_out("+task.ends=paused", until=3)
    (entry,) = paused.study.entries()
    assert (entry.state, list(entry.rungs)) == ("waiting", [3])
    assert {name for name in paused.files if name.endswith(".pt")} == set(WEIGHTS)


def test_weights_go_only_once_the_storage_has_the_row(
    carry_out: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[str] = []
    complete = Study.complete

    def looks(study: Study, number: int, row: Any) -> None:
        found.extend(sorted(path.name for path in tmp_path.glob("s/trials/*/*.pt")))
        complete(study, number, row)

    monkeypatch.setattr(Study, "complete", looks)
    assert carry_out("keep=rows").files == STAYS
    assert found == WEIGHTS
