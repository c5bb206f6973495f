"""Tells runs to W&B, each in a process of its own that ends as it is asked to.

``python -m tests.wandb_runs FOLDER kept/offline/0-5-killed kept/offline/3-8-row kept/sync`` tells steps 0 to
4 of the run "kept" offline and is killed, then steps 3 to 7 and a row, and calls `wandb sync` for all that
lies there. Endings: killed, stopped (no row), row. As a trial does, each tells the run whole: metrics.jsonl
in FOLDER/kept has what was told before.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from retsweep.sweep.tracked import Whole
from retsweep.tracking import TrackedRun, Wandb

STUDY = "a-study"
#: Its loss is not that of the last step.
ROW = {"valid_ppl": 12.5, "status": "ok", "loss": 99.0}


def line(step: int) -> dict[str, float]:
    return {"step": step, "loss": step / 4}


def tell(folder: Path, first: int, end: int, ending: str) -> None:
    metrics = folder / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line(step)) + "\n" for step in range(first)))
    run = TrackedRun(folder.name, "Type A 3:1", STUDY, folder, {"seed": 1}, job_type="Type A")
    tracker = Whole(Wandb().open(run), folder)
    for step in range(first, end):
        tracker.metrics(line(step))
    if ending == "killed":
        while not list(folder.glob("wandb/*run-*/*.wandb")):
            time.sleep(0.02)
        time.sleep(0.3)  # some of it is under way
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "row":
        tracker.row(ROW)
    tracker.close()


def sync(folder: Path) -> None:
    from wandb.cli.cli import cli

    cli.main(["sync", *map(str, folder.glob("wandb/offline-run-*"))], standalone_mode=False)


def carry_out(folder: Path, what: str) -> None:
    folder.mkdir(exist_ok=True)
    if what == "sync":
        sync(folder)
        return
    os.environ["WANDB_MODE"], told = what.split("/")
    first, end, ending = told.split("-")
    tell(folder, int(first), int(end), ending)


def main(root: Path, *phases: str) -> None:
    import wandb  # noqa: F401  # once for all of them

    for phase in phases:
        name, _, what = phase.partition("/")
        child = os.fork()
        if not child:
            carry_out(root / name, what)
            sys.exit()
        _, status = os.waitpid(child, 0)
        if not what.endswith("killed") and status:
            raise SystemExit(f"{phase} ended with {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
