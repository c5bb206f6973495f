"""A task that trains nothing, for searches: its perplexity is known in closed form at every step."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from retsweep.spec.base import spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import InterruptedRun, Workspace

#: Names the file that hears a line a run and a process: hash, first step, step at the end.
LOG = "RETSWEEP_TOY_LOG"


@spec
class Curve:
    """As many steps as the protocol says. Attention helps, most of all late in the depth; a network
    with ``diverges`` for its pattern diverges at the second step. The process is killed before its
    ``dies_after``-th step of all, once a folder."""

    name: ClassVar[str] = "curve"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    computes: ClassVar[bool] = False

    diverges: str = ""
    dies_after: int = 0

    def __call__(self, run: RunSpec, workspace: Workspace) -> dict[str, Any]:
        steps, every = run.protocol.steps or 0, run.protocol.evaluation.every
        saved = workspace.folder / "last.pt"
        first = done = int(saved.read_text()) if saved.exists() else 0
        try:
            while done < steps:
                if workspace.stop():
                    raise InterruptedRun
                self._die()
                done += 1
                if run.pattern == self.diverges and done == 2:
                    return {"valid_ppl": None, "status": "diverged@2", "steps": done}
                if every and done % every == 0:
                    line = {"step": done, "valid_loss": math.log(perplexity(run, done))}
                    with (workspace.folder / "metrics.jsonl").open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    workspace.metrics(line)
                saved.write_text(str(done))
                workspace.progress(done, steps)
        finally:
            tell(f"{workspace.folder.name} {first} {done}")
        return {"valid_ppl": perplexity(run, steps), "steps": steps}

    def _die(self) -> None:
        count = Path(os.environ[LOG]).with_name("steps")
        taken = len(count.read_bytes()) + 1 if count.exists() else 1
        count.write_bytes(b"." * taken)
        if taken == self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)


def perplexity(run: RunSpec, steps: int) -> float:
    """Falls with the steps, and with attention: a layer's counts the more the higher it stands."""
    helped = sum(at + 1 for at, letter in enumerate(run.pattern) if letter == "A")
    return 40.0 - 20.0 * steps / ((run.protocol.steps or 1) + steps) - helped - 0.01 * run.scale.ffn


def tell(line: str) -> None:
    with Path(os.environ[LOG]).open("a") as file:
        file.write(line + "\n")
