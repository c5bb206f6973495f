"""A process that takes trials of a study until none waits: started by test_study.py, six at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.study import Study


def main(url: str, gate: str, out: str, trials: int, *, fresh: bool) -> None:
    """Says that it is ready, waits for ``gate``, and writes a line a trial that it ran."""
    wanted = {f"hash{number}": f"trial {number}" for number in range(trials)}
    import optuna  # noqa: F401  # before the gate, so that all of them start at once

    Path(f"{out}.ready").touch()
    while not Path(gate).exists():
        time.sleep(0.001)
    study = open_and_reconcile(url, "s", wanted) if fresh else Study(url, "s")
    with Path(out).open("w") as file:
        while (entry := study.claim(wanted)) is not None:
            file.write(f"{entry.hash}\n")
            file.flush()
            study.complete(entry.trial, {"valid_ppl": 1.0})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), fresh=sys.argv[5] == "fresh")
