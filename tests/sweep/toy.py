"""A task that trains nothing: it counts steps, and tells a file that it ran."""

from __future__ import annotations

import errno
import math
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

from retsweep.spec.base import spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import InterruptedRun, Workspace

#: Names the file that hears "HASH EVENT" lines.
LOG = "RETSWEEP_TOY_LOG"


@spec
class Toy:
    """``steps`` of ``seconds`` each (of none once the tests are in a :func:`hurry`); ``fails_at`` a
    seed that raises, ``dies_at`` one whose worker is killed in the middle (``deaths`` times),
    ``full_at`` one that finds no space on the disk until the tests are in a hurry; ``says`` is
    printed; a ``deaf`` toy does not stop when it is asked to."""

    name: ClassVar[str] = "toy"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    steps: int = 1
    seconds: float = 0.0
    fails_at: int | None = None
    dies_at: int | None = None
    deaths: int = 1
    full_at: int | None = None
    says: str = ""
    deaf: bool = False

    def __call__(self, run: RunSpec, workspace: Workspace) -> dict[str, Any]:
        saved = workspace.folder / "toy.saved"
        first = int(saved.read_text()) if saved.exists() else 0
        tell(workspace.folder.name, f"began@{first}")
        print(end=self.says, flush=True)
        for step in range(first, self.steps):
            if workspace.stop() and not self.deaf:
                saved.write_text(str(step))
                raise InterruptedRun
            if not _hurried().exists():
                time.sleep(self.seconds)
            workspace.progress(step + 1, self.steps)
            if step == first:
                tell(workspace.folder.name, "stepped")
            if run.seed == self.fails_at:
                raise ValueError("the toy broke\nand says so at length")
            if run.seed == self.full_at and not _hurried().exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(saved))
            self._die(run, workspace.folder)
        tell(workspace.folder.name, "ended")
        return {"valid_ppl": 10.0 + run.seed, "steps": self.steps, "first_step": first}

    def _die(self, run: RunSpec, folder: Path) -> None:
        died = len(list(folder.glob("death-*")))
        if run.seed == self.dies_at and died < self.deaths:
            (folder / f"death-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@spec
class Rated(Toy):
    """A toy on a corpus, best (valid_ppl 10) at a learning rate of 0.01; it diverges at rates above
    ``diverges_above``."""

    name: ClassVar[str] = "rated"
    reads_data: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    computes: ClassVar[bool] = True

    diverges_above: float = 1.0

    def __call__(self, run: RunSpec, workspace: Workspace) -> dict[str, Any]:
        row = Toy.__call__(self, run, workspace)
        rate = run.protocol.learning_rate
        if rate > self.diverges_above:
            return {**row, "valid_ppl": None, "status": "diverged@1"}
        return {**row, "valid_ppl": 10 + abs(math.log10(rate) + 2)}


def hurry() -> None:
    """From now on steps take no time, in whatever process."""
    _hurried().touch()


def _hurried() -> Path:
    return Path(os.environ[LOG]).with_name("hurry")


def tell(trial: str, event: str) -> None:
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{trial} {event}\n")
