"""checkpoint.dir: a trial that one machine puts back, another takes and goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from retsweep.spec.base import spec
from retsweep.sweep import command, trial
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.variants import wanted
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.train import checkpoint


@spec
class Saves:
    """Three steps a time: a checkpoint, and it is stopped; or it ends, where it finds one."""

    name: ClassVar[str] = "saves"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    def __call__(self, run: Any, workspace: Workspace) -> dict[str, Any]:
        last = workspace.folder / "last.pt"
        if last.exists():
            return {"valid_ppl": 12.0, "first_step": checkpoint.load(last)["state"]["step"]}
        checkpoint.save(
            last, {"run": {}, "step": 3, "state": {"step": 3}, "weights": None, "optimiser": None}
        )
        lines = workspace.folder / "metrics.jsonl"
        lines.touch()
        for path in (lines, last):
            workspace.saved(path, 3)
        raise InterruptedRun("stopped")


def carry_out(machine: Path, shared: Path, *overrides: str) -> Job:
    asked = wanted(
        [
            *("scale=tiny", "tracker=none", "device=cpu", "study=s", f"runs={machine}", "~task"),
            *("+task._target_=tests.sweep.test_elsewhere.Saves", f"storage=sqlite:///{shared}/study.db"),
            *(f"checkpoint.dir={shared}/checkpoints", *overrides),
        ]
    )
    job = command._job(asked, plan(asked))
    study = open_and_reconcile(job.url, job.study, job.labels)
    taken = study.claim(job.runs)
    assert taken is not None
    trial.run_trial(job, study, taken, lambda: False)
    return job


def test_a_trial_goes_on_on_another_machine(tmp_path: Path) -> None:
    carry_out(tmp_path / "one", tmp_path)
    (there,) = (tmp_path / "checkpoints" / "s").glob("*/last-*.pt")
    assert there.name == "last-00000003.pt"
    job = carry_out(tmp_path / "two", tmp_path, "keep=rows")
    (key,) = job.runs
    row = json.loads((tmp_path / "two" / "s" / "trials" / key / "row.json").read_text())
    assert row["first_step"] == 3
    assert not there.exists(), "what keep=rows removes, it removes everywhere"
