"""``python -m benchmarks.sweep [KEY=VALUE ...]``: a sweep's time against a bare loop over the same models.

Both in fresh processes with one thread each: the bare loop (``bare_loop.py``), the sweep with one worker,
and the sweep with as many as there are cores. Prints seconds, the ratio of each to the bare loop, and the
sweep's own account of where its time went; fails if the two gave different perplexities, which means that
they did not do the same work. ``make sweep``'s 31 models unless KEY=VALUE say something else.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from retsweep.spec import SpecError
from retsweep.sweep.variants import wanted

DEFAULT = ("+sweep=ar_ratio", "seeds=1")
#: Sums in another order may differ in the last digits of a perplexity, and in nothing else.
TOLERANCE = 1e-4


def main(overrides: Sequence[str]) -> int:
    """Runs both, prints the comparison: 0, 1 if they disagree, 2 if not understood."""
    asked = [*DEFAULT, *overrides]
    try:
        wanted(asked)
    except SpecError as error:
        print(f"benchmarks.sweep: {error}", file=sys.stderr)
        return 2
    console = Console(highlight=False, soft_wrap=True)
    cores = len(os.sched_getaffinity(0))
    bare, bare_seconds = bare_loop(asked, console)
    console.print(f"bare loop: {len(bare)} models in {bare_seconds:.0f} s, {_training(bare):.0%} of it steps")
    agree = True
    for workers in sorted({1, cores}):
        with tempfile.TemporaryDirectory() as folder:
            said, seconds = sweep([*asked, f"workers={workers}"], Path(folder), console)
            agree &= same(bare, perplexities(Path(folder)), console)
        console.print(
            f"sweep, workers={workers}: {seconds:.0f} s, {seconds / bare_seconds:.2f}x the bare loop; {said}"
        )
    return 0 if agree else 1


def bare_loop(asked: Sequence[str], console: Console) -> tuple[list[dict[str, Any]], float]:
    """What the bare loop printed, and its seconds from start to end. Raises CalledProcessError."""
    trained: list[dict[str, Any]] = []
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.bare_loop", *asked]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_one_thread()) as process,
        Progress(*Progress.get_default_columns(), console=console, transient=True) as bar,
    ):
        assert process.stdout is not None
        shown = bar.add_task("bare loop", total=len(wanted(asked).runs))
        for line in process.stdout:
            trained.append(json.loads(line))
            bar.advance(shown)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return trained, time.perf_counter() - began


def sweep(asked: Sequence[str], folder: Path, console: Console) -> tuple[str, float]:
    """What the sweep said of its time, and its seconds from start to end. Raises CalledProcessError."""
    command = [sys.executable, "-m", "retsweep", *asked, "tracker=none", "study=s", f"runs={folder}"]
    began = time.perf_counter()
    said = "it said nothing of its time"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_one_thread()) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "were training steps" in line:
                said = line.strip()
            elif " finished, " in line:
                console.print(line.strip(), markup=False)  # its standing, with an estimate of the time left
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return said, time.perf_counter() - began


def perplexities(folder: Path) -> list[float]:
    """Of all rows of the study."""
    rows = [json.loads(path.read_text()) for path in (folder / "s" / "trials").glob("*/row.json")]
    return [row["valid_ppl"] for row in rows]


def same(bare: Sequence[dict[str, Any]], swept: Sequence[float], console: Console) -> bool:
    """Whether the models ended at the same validation perplexities."""
    ours, theirs = sorted(swept), sorted(one["valid_ppl"] for one in bare)
    if len(ours) == len(theirs) and all(
        math.isclose(a, b, rel_tol=TOLERANCE) for a, b in zip(ours, theirs, strict=True)
    ):
        return True
    console.print(f"not the same work: valid_ppl {ours} by the sweep, {theirs} by the bare loop", style="red")
    return False


def _training(trained: Sequence[dict[str, Any]]) -> float:
    steps = sum(one["training"] for one in trained)
    return float(steps / (steps + sum(one["evaluation"] for one in trained)))


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
