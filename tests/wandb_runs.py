"""Tells runs to W&B, each in a process of its own that ends as it is asked to.

``python -m tests.wandb_runs FOLDER 0-5-killed 3-8-row`` tells steps 0 to 4 of the run in FOLDER and is
killed, then steps 3 to 7, a row, and closes. Endings: killed, stopped (no row), row. As a trial does, each
tells the run whole: metrics.jsonl in FOLDER has what was told before.
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

RUN, STUDY = "0123abcd", "a-study"
ROW = {"valid_ppl": 12.5, "status": "ok", "loss": 99.0}


def line(step: int) -> dict[str, float]:
    return {"step": step, "loss": step / 4}


def tell(folder: Path, first: int, end: int, ending: str) -> None:
    metrics = folder / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line(step)) + "\n" for step in range(first)))
    run = TrackedRun(RUN, "Type A 3:1", STUDY, folder, {"seed": 1}, job_type="Type A")
    tracker = Whole(Wandb().open(run), folder)
    for step in range(first, end):
        tracker.metrics(line(step))
    if ending == "killed":
        while not list(folder.glob(f"wandb/*run-*-{RUN}/run-{RUN}.wandb")):
            time.sleep(0.05)
        time.sleep(0.3)  # some of it is under way
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "row":
        tracker.row(ROW)
    print(tracker.close(), flush=True)


def main(folder: Path, *runs: str) -> None:
    import wandb  # noqa: F401  # once for all of them

    folder.mkdir(exist_ok=True)
    for run in runs:
        first, end, ending = run.split("-")
        child = os.fork()
        if not child:
            tell(folder, int(first), int(end), ending)
            sys.exit()
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
