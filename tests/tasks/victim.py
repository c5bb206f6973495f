"""A process of its own that trains: ``python -m tests.tasks.victim FOLDER CACHE HOLD OVERRIDE...``.

Prints "step N" after each step, waiting to be killed after step HOLD, and the row as JSON at the end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from retsweep.spec import load_spec
from retsweep.tasks.base import Workspace


def main(folder: str, cache: str, hold: str, *overrides: str) -> None:
    def progress(done: int, total: int) -> None:
        print(f"step {done}", flush=True)
        if done == int(hold):
            time.sleep(600)

    torch.set_num_threads(1)
    spec = load_spec(overrides)
    row = spec.task(spec, Workspace(Path(folder), "cpu", Path(cache), progress=progress))
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
